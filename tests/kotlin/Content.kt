package android.content

import java.io.Closeable
import java.io.File
import java.io.FileDescriptor
import java.io.FileInputStream
import java.io.InputStream

class AssetFileDescriptor(private val file: File) : Closeable {
    private val stream = FileInputStream(file)
    val fileDescriptor: FileDescriptor = stream.fd
    val startOffset = 0L
    val declaredLength = file.length()

    override fun close() = stream.close()
}

class AssetManager(private val folder: File) {
    fun open(name: String): InputStream = File(folder, name).inputStream()

    fun openFd(name: String) = AssetFileDescriptor(File(folder, name))
}

class Context(folder: File) {
    val assets = AssetManager(folder)
}
