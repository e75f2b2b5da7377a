package io.github.seco

import io.github.seco.testing.FakeSecoClient
import io.github.seco.testing.Reply
import java.io.File
import java.lang.reflect.InvocationTargetException
import java.net.URLClassLoader
import kotlin.time.Duration.Companion.milliseconds
import kotlinx.coroutines.async
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.yield
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test

/** A fake on a machine that the library is not built for. */
class WithoutLibraryTest {
    /** JNA loads the library: where JNA is not, whatever needs the library fails. */
    private val loader = System.getProperty("java.class.path").split(File.pathSeparator)
        .filter { !File(it).name.startsWith("jna-") && !it.endsWith(".so") }
        .map { File(it).toURI().toURL() }
        .let { URLClassLoader(it.toTypedArray(), ClassLoader.getPlatformClassLoader()) }

    private fun run(part: String) = loader.use {
        it.loadClass(Parts::class.java.name).getMethod(part).invoke(null)
    }

    @Test
    fun `a fake and all that it says need no library`() {
        run("fake")
    }

    @Test
    fun `a real client needs it`() {
        val failure = assertThrows(InvocationTargetException::class.java) { run("real") }
        check(failure.cause is NoClassDefFoundError || failure.cause is ExceptionInInitializerError) { "${failure.cause}" }
    }

    /** What is run there. */
    object Parts {
        @JvmStatic
        fun fake() = runBlocking {
            val failures = listOf(
                SecoException.InvalidConfiguration(""), SecoException.WrongInputSize(1u, 2u, ""), SecoException.Network(""),
                SecoException.Timeout(""), SecoException.Busy(1u), SecoException.Refused(""),
                SecoException.UntrustedServer(""), SecoException.IncompatibleServer(""), SecoException.Storage(""),
                SecoException.Closed(""), SecoException.TokenRefused(TokenProblem.EXHAUSTED, 1u, ""),
            )
            val stages = listOf(
                RequestProgress.Sent, RequestProgress.Queued(1u, 2u), RequestProgress.Running, RequestProgress.Waiting(0u),
            )
            val script = listOf(Reply(label = 3, progress = stages, delay = 1.milliseconds), Reply(delay = 60_000.milliseconds)) +
                failures.map { Reply(error = it) }
            FakeSecoClient(*script.toTypedArray(), classes = List(10) { "digit $it" }, keepSent = true).use { client ->
                val told = mutableListOf<String>()
                val prediction = client.infer(ByteArray(784)) { told += "$it" }
                val answer = client.answers(prediction).single()
                check(told.size == 4 && answer.className == "digit 3" && answer.kind == AnswerKind.CLASSES) { "$answer" }
                val cancelled = async { client.infer(ByteArray(784)) }
                yield()
                cancelled.cancelAndJoin()
                for (code in 1..11) {
                    val failure = runCatching { client.infer(ByteArray(784)) }.exceptionOrNull() as SecoException
                    check(failure.code == code && "$failure".isNotEmpty())
                }
                client.inferMany(List(9) { ByteArray(784) })
                client.inferReals(FloatArray(784))
                client.plainRequest()
                client.networkChanged()
                listOf(client.lastCost(), client.totalCost(), client.lastSent(), client.model(), client.transport())
                    .forEach { check("$it".isNotEmpty()) }
            }
        }

        @JvmStatic
        fun real() = runBlocking { SecoClient.connect(ClientConfig("")).close() }
    }
}
