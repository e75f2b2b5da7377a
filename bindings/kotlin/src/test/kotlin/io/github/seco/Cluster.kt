package io.github.seco

import java.io.File
import java.nio.file.Files
import java.util.concurrent.TimeUnit

/**
 * A real cluster: gateway and remote servers as processes of this machine, serving [model]; [guarded], only to who shows
 * its [token].
 */
class Cluster(model: String = "minionn", servers: Int = 3, guarded: Boolean = false) : AutoCloseable {
    val folder: File = Files.createTempDirectory("seco-test").toFile()
    val deployment: String
    val token: String?
    private val process: Process

    init {
        val (file, log) = File(folder, "deployment.toml") to File(folder, "log")
        val shown = File(folder, "token")
        val access = if (guarded) listOf("--token", "$shown") else emptyList()
        process = ProcessBuilder(
            System.getProperty("seco.server"), "demo", "--keep", "--model", model, "--servers", "$servers",
            "--count", "1", "--listen", "127.0.0.1", "--deployment", "$file", *access.toTypedArray(),
        ).redirectErrorStream(true).redirectOutput(log).start()
        // Children of a test that is killed must not stay.
        Runtime.getRuntime().addShutdownHook(Thread { close() })
        val end = System.nanoTime() + TimeUnit.MINUTES.toNanos(2)
        while (!log.readText().contains("--deployment")) {
            check(process.isAlive && System.nanoTime() < end) { "the cluster did not start:\n${log.readText()}" }
            Thread.sleep(50)
        }
        deployment = file.readText()
        token = if (guarded) shown.readText() else null
    }

    /** Ends all servers. */
    override fun close() {
        if (process.isAlive) {
            ProcessBuilder("kill", "-INT", "${process.pid()}").start().waitFor()
            if (!process.waitFor(10, TimeUnit.SECONDS)) process.destroyForcibly().waitFor()
        }
        folder.deleteRecursively()
    }

    companion object {
        /** For all tests that leave it as it is. */
        val shared: Cluster by lazy { Cluster() }
    }
}

/** An array of bytes or of floats in NumPy's format, by rows. */
class Npy(file: File) {
    private val bytes = file.readBytes()
    private val start = 10 + (bytes[8].toInt() and 255) + 256 * (bytes[9].toInt() and 255)
    private val header = String(bytes, 10, start - 10, Charsets.US_ASCII)
    private val width = if ("f4" in header) 4 else 1
    val rows: Int = Regex("\\((\\d+),").find(header)!!.groupValues[1].toInt()

    fun row(index: Int): ByteArray {
        val length = (bytes.size - start) / rows
        return bytes.copyOfRange(start + index * length, start + (index + 1) * length)
    }

    fun floats(index: Int): List<Float> {
        check(width == 4) { header }
        val row = java.nio.ByteBuffer.wrap(row(index)).order(java.nio.ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
        return List(row.remaining()) { row.get(it) }
    }
}

/** The digits that come with the servers, and their labels. */
object Digits {
    private val data = File(System.getProperty("seco.data"))
    private val images = Npy(File(data, "minionn-digits-20.npy"))
    private val labels = Npy(File(data, "minionn-labels-20.npy"))

    val all: List<ByteArray> = List(images.rows) { images.row(it) }
    val small: List<ByteArray> = Npy(File(data, "mlp-digits-20.npy")).run { List(rows) { row(it) } }
    fun label(index: Int): Int = labels.row(index)[0].toInt()

    /** The class that the trained network in floating point prefers; null where its outputs are not here. */
    fun expected(index: Int): Int? {
        val models = File(System.getProperty("seco.models"))
        val (inputs, outputs) = File(models, "mnist-test-200.npy") to File(models, "expected-minionn-mnist.npy")
        if (!inputs.exists() || !outputs.exists()) return null
        val known = Npy(inputs)
        val row = (0 until known.rows).firstOrNull { known.row(it).contentEquals(all[index]) } ?: return null
        return Npy(outputs).floats(row).withIndex().maxBy { it.value }.index
    }
}
