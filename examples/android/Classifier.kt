package com.example.classifier

import android.content.Context
import android.graphics.Bitmap
import java.io.FileInputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.FileChannel
import kotlin.math.abs
import kotlin.math.exp
import kotlin.math.roundToInt
import org.json.JSONArray
import org.json.JSONObject
import org.tensorflow.lite.Interpreter

/**
 * Classifies photos with a float TFLite model of cars-hw.
 *
 * The model NAME and its card NAME.json are assets of the app. The card says how a photo becomes the input.
 */
class Classifier(context: Context, name: String, threads: Int = 1) : AutoCloseable {
    private val card = JSONObject(context.assets.open("$name.json").bufferedReader().use { it.readText() })
    private val steps = card.getJSONObject("preprocessing")
    private val height = steps.getJSONArray("resolution").getInt(0)
    private val width = steps.getJSONArray("resolution").getInt(1)
    private val channels = steps.getInt("channels")
    private val scale = steps.getDouble("scale").toFloat()
    private val mean = floats(steps.getJSONArray("mean"))
    private val std = floats(steps.getJSONArray("std"))
    private val input = ByteBuffer.allocateDirect(4 * height * width * channels).order(ByteOrder.nativeOrder())
    private val interpreter: Interpreter

    /** The names of the classes, in the order of the probabilities. */
    val classNames = card.getJSONArray("class_names").let { names -> List(names.length()) { names.getString(it) } }

    init {
        require(card.getString("precision") == "fp32") { "$name is not a float model" }
        require(card.getString("output") == "logits") { "the outputs of $name are not logits" }
        require(steps.getString("layout") == "NHWC") { "$name does not take images with their channels last" }
        require(steps.getString("formula") == "(pixel * scale - mean) / std") { "$name has another formula" }
        require(steps.getJSONObject("resizing").getString("filter") == "bilinear") { "$name has another filter" }
        val model = context.assets.openFd(name).use { file ->
            FileInputStream(file.fileDescriptor).use {
                it.channel.map(FileChannel.MapMode.READ_ONLY, file.startOffset, file.declaredLength)
            }
        }
        interpreter = Interpreter(model, Interpreter.Options().setNumThreads(threads))
    }

    /** Returns the probability of each class for an upright photo. Call it from one thread at a time. */
    fun classify(photo: Bitmap): FloatArray {
        val pixels = IntArray(photo.width * photo.height)
        photo.getPixels(pixels, 0, photo.width, 0, 0, photo.width, photo.height)
        val planes = List(channels) { channel ->
            resized(IntArray(pixels.size) { value(pixels[it], channel) }, photo.width, photo.height)
        }
        input.rewind()
        for (place in 0 until height * width) {
            for (channel in 0 until channels) {
                input.putFloat((planes[channel][place] * scale - mean[channel]) / std[channel])
            }
        }
        input.rewind()
        val logits = arrayOf(FloatArray(classNames.size))
        interpreter.run(input, logits)
        val largest = logits[0].max()
        val powers = logits[0].map { exp(it - largest) }
        return FloatArray(powers.size) { powers[it] / powers.sum() }
    }

    override fun close() = interpreter.close()

    /** Returns red, green or blue of a pixel, or its luma for a network of grey images. */
    private fun value(pixel: Int, channel: Int): Int {
        val red = (pixel shr 16) and 0xff
        val green = (pixel shr 8) and 0xff
        val blue = pixel and 0xff
        if (channels == 1) return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) shr 16
        return intArrayOf(red, green, blue)[channel]
    }

    /** Resizes one channel as the card says: bilinear, smoothed where the image becomes smaller. */
    private fun resized(plane: IntArray, fromWidth: Int, fromHeight: Int): IntArray {
        val across = weights(fromWidth, width)
        val rows = IntArray(fromHeight * width) { place ->
            val (first, shares) = across[place % width]
            rounded(shares) { plane[place / width * fromWidth + first + it] }
        }
        val down = weights(fromHeight, height)
        return IntArray(height * width) { place ->
            val (first, shares) = down[place / width]
            rounded(shares) { rows[(first + it) * width + place % width] }
        }
    }

    /** Returns for each pixel of the result its first pixel of the source, and the shares from there on. */
    private fun weights(from: Int, to: Int): List<Pair<Int, DoubleArray>> {
        val ratio = from.toDouble() / to
        val reach = maxOf(ratio, 1.0)
        return List(to) { index ->
            val centre = (index + 0.5) * ratio
            val first = maxOf((centre - reach + 0.5).toInt(), 0)
            val last = minOf((centre + reach + 0.5).toInt(), from)
            val shares = DoubleArray(last - first) { maxOf(1 - abs((first + it - centre + 0.5) / reach), 0.0) }
            first to shares.map { it / shares.sum() }.toDoubleArray()
        }
    }

    private fun rounded(shares: DoubleArray, pixel: (Int) -> Int): Int {
        var sum = 0.0
        for (index in shares.indices) sum += shares[index] * pixel(index)
        return sum.roundToInt().coerceIn(0, 255)
    }

    private fun floats(values: JSONArray) = FloatArray(values.length()) { values.getDouble(it).toFloat() }
}
