package io.github.seco

import java.io.File
import java.nio.file.Path
import java.util.concurrent.Callable
import java.util.concurrent.Executors
import java.util.concurrent.TimeUnit
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir

/** A session in a file: whole at any moment, whoever writes at the same time. */
class FileSessionStoreTest {
    @TempDir
    lateinit var folder: Path

    private val file: File get() = folder.resolve("session").toFile()

    private fun names() = folder.toFile().list()!!.sorted()

    @Test
    fun `threads and processes write at the same time`() {
        val java = File(System.getProperty("java.home"), "bin/java").path
        val command = listOf(
            java, "-cp", System.getProperty("java.class.path"), "io.github.seco.FileSessionStoreTestKt", file.path,
        )
        val processes = List(2) { ProcessBuilder(command).inheritIO().start() }
        write(file)
        processes.forEach { assertTrue(it.waitFor(60, TimeUnit.SECONDS) && it.exitValue() == 0, "a writer failed") }
        assertEquals(listOf("session"), names())
    }

    @Test
    fun `what crashed writers left is removed in time`() {
        val old = System.currentTimeMillis() - 3_700_000
        fun left(name: String, time: Long) = folder.resolve(name).toFile().run {
            createNewFile()
            setLastModified(time)
        }
        left("session.01234567-89ab-cdef-0123-456789abcdef.new", old)
        val kept = mapOf(
            "session.11234567-89ab-cdef-0123-456789abcdef.new" to old + 200_000,
            "other.01234567-89ab-cdef-0123-456789abcdef.new" to old,
            "session.01234567-89ab-cdef-0123-456789abcde.new" to old,
            "session.new" to old,
        )
        kept.forEach(::left)
        FileSessionStore(file).save(session(3))
        assertEquals((kept.keys + "session").sorted(), names())
    }

    @Test
    fun `errors are told, and the copy in memory is wiped`() {
        assertNull(FileSessionStore(file).load())
        val missing = FileSessionStore(folder.resolve("missing/session").toFile())
        assertThrows(StoreException::class.java) { missing.save(session(1)) }
        val session = session(2)
        FileSessionStore(file).save(session)
        assertTrue(session.all { it == 0.toByte() })
        assertArrayEquals(session(2), FileSessionStore(file).load())
    }
}

/** Whole if it is of one byte, as long as that says. */
private fun session(writer: Int) = ByteArray(100 + writer) { writer.toByte() }

/** Several threads that load and save. */
private fun write(file: File) {
    val threads = Executors.newFixedThreadPool(4)
    val writers = List(4) { writer ->
        Callable {
            val store = FileSessionStore(file)
            repeat(25) {
                store.save(session(writer))
                val loaded = checkNotNull(store.load()) { "it is never missing" }
                check(loaded.contentEquals(session(loaded.first().toInt()))) { "it is whole" }
            }
        }
    }
    try {
        threads.invokeAll(writers).forEach { it.get() }
    } finally {
        threads.shutdown()
    }
}

/** The other process. */
fun main(arguments: Array<String>) = write(File(arguments.single()))
