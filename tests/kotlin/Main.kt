import android.content.Context
import android.graphics.Bitmap
import com.example.classifier.Classifier
import java.io.File

fun main(arguments: Array<String>) {
    val (folder, model, photo) = arguments
    Classifier(Context(File(folder)), model).use { classifier ->
        val probabilities = classifier.classify(Bitmap(File(photo)))
        println(classifier.classNames.joinToString("\t"))
        println(probabilities.joinToString("\t"))
    }
}
