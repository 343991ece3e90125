// What stands for Android and LiteRT in the check of examples/android/Classifier.kt on a Java machine.

package android.graphics

import java.io.File
import javax.imageio.ImageIO

class Bitmap(file: File) {
    private val image = ImageIO.read(file)
    val width = image.width
    val height = image.height

    fun getPixels(to: IntArray, offset: Int, stride: Int, x: Int, y: Int, width: Int, height: Int) {
        image.getRGB(x, y, width, height, to, offset, stride)
    }
}
