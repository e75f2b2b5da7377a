package io.github.seco

import io.github.seco.testing.FakeSecoClient
import io.github.seco.testing.Reply
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.test.currentTime
import kotlinx.coroutines.test.runTest
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

/** What the cases do not ask of a fake. */
@OptIn(ExperimentalCoroutinesApi::class)
class FakeSecoClientTest {
    private val input = ByteArray(784)

    @Test
    fun `a delay is as long as the script says, and requests wait side by side`() = runTest {
        val client = FakeSecoClient(
            Reply(delay = 5.seconds), Reply(label = 3, delay = 3.seconds), Reply(label = 1), Reply(label = 2, delay = 2.seconds),
        )
        client.infer(input)
        assertEquals(5000, currentTime)
        assertEquals(listOf(3u, 1u, 2u), client.inferMany(List(3) { input }).map { it.label })
        assertEquals(8000, currentTime)
    }

    @Test
    fun `closing ends what waits at once`() = runTest {
        val client = FakeSecoClient(Reply(delay = 60.seconds))
        val waits = launch { assertEquals(10, (runCatching { client.infer(input) }.exceptionOrNull() as SecoException).code) }
        testScheduler.advanceTimeBy(1.seconds)
        client.close()
        waits.join()
        assertEquals(1000, currentTime)
    }

    @Test
    fun `answers are read as the model's`() = runTest {
        val client = FakeSecoClient(
            Reply(logits = listOf(1, 9), outsideCalibration = true), inputLen = 3, values = 2, classes = listOf("no", "yes"),
        )
        val prediction = client.inferReals(floatArrayOf(0.5f, 1f, 2f))
        assertTrue(prediction.outsideCalibration)
        val answer = client.answers(prediction).single()
        assertEquals("yes", answer.className)
        assertEquals(listOf(1.0, 9.0), answer.values)
        assertEquals(ModelInfo(3u, 8u, 8u, 2u), client.model())
        assertNull(FakeSecoClient().run { answers(infer(input)) }.single().className)
    }

    @Test
    fun `values of more bits are two bytes, and one number`() = runTest {
        val client = FakeSecoClient(inputLen = 6, inputBits = 12)
        assertEquals(12u, client.model().inputBits)
        client.infer(ByteArray(6))
        client.inferReals(FloatArray(3))
        val refused = SecoException.WrongInputSize::class.java
        assertThrows(refused) { runBlocking { client.infer(ByteArray(3)) } }
        assertThrows(refused) { runBlocking { client.inferReals(FloatArray(6)) } }
    }

    @Test
    fun `what is no number is refused, and uses up no reply`() = runTest {
        val client = FakeSecoClient(Reply(label = 5))
        for (value in listOf(Float.NaN, Float.POSITIVE_INFINITY)) {
            val failure = runCatching { client.inferReals(FloatArray(784) { value }) }.exceptionOrNull()
            assertEquals(1, (failure as SecoException).code)
        }
        assertEquals(5u, client.infer(input).label)
    }

    @Test
    fun `what a listener throws is its own affair`() = runTest {
        val client = FakeSecoClient(Reply(label = 5))
        assertEquals(5u, client.infer(input) { throw IllegalStateException("of the application") }.label)
    }

    @Test
    fun `a script that the model could not give is refused`() {
        for (wrong in listOf(Reply(label = 10), Reply(label = -1), Reply(logits = listOf(1, 2)))) {
            assertThrows(IllegalArgumentException::class.java) { FakeSecoClient(wrong) }
        }
    }

    @Test
    fun `any number of threads may use it`() = runBlocking {
        val client = FakeSecoClient(keepSent = true)
        val requests = List(400) { launch(Dispatchers.Default) { client.infer(input) } }
        requests.forEach { it.join() }
        assertEquals(400uL * 784u, client.totalCost().bytesUp)
    }
}
