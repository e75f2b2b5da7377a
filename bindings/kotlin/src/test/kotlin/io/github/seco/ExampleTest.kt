package io.github.seco

import io.github.seco.testing.FakeSecoClient
import io.github.seco.testing.Reply
import java.io.File
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.test.runTest
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

/** The README's example. */
class ExampleTest {
    class Reader(private val client: SecoClient) {
        suspend fun read(pixels: ByteArray): String = try {
            "a ${client.infer(pixels).label}"
        } catch (busy: SecoException.Busy) {
            "try again in ${busy.retryAfterMs / 1000u} s"
        }
    }

    @Test
    fun `a digit is read, and busy servers are told`() = runTest {
        val client = FakeSecoClient(
            Reply(label = 7, delay = 60.seconds),                  // takes no time in runTest
            Reply(error = SecoException.Busy(2000u)),
        )
        val reader = Reader(client)
        assertEquals("a 7", reader.read(ByteArray(784)))
        assertEquals("try again in 2 s", reader.read(ByteArray(784)))
    }

    @Test
    fun `the README has this example`() {
        val folder = File(System.getProperty("seco.bindings"), "kotlin")
        val example = Regex("# Testing.*?```kotlin\n(.*?)```", RegexOption.DOT_MATCHES_ALL)
            .find(File(folder, "README.md").readText())!!.groupValues[1]
        val source = File(folder, "src/test/kotlin/io/github/seco/ExampleTest.kt").readText()
        val inside = example.trim().lines().joinToString("\n") { if (it.isEmpty()) it else "    $it" }
        assertTrue(inside in source, example)
    }
}
