package org.tensorflow.lite

import java.io.File
import java.nio.ByteBuffer

/** Writes its input to a file; its outputs are 0, 1, 2 and so on. */
class Interpreter(model: ByteBuffer, private val options: Options) : AutoCloseable {
    class Options {
        fun setNumThreads(count: Int): Options = this
    }

    private val bytes = model.remaining()

    fun run(input: Any, output: Any) {
        val buffer = input as ByteBuffer
        val content = ByteArray(buffer.remaining())
        buffer.get(content)
        File("input.bin").writeBytes(content)
        val logits = (output as Array<*>)[0] as FloatArray
        for (index in logits.indices) logits[index] = index.toFloat()
        File("model.txt").writeText("$bytes")
    }

    override fun close() {}
}
