package io.github.seco.demo

import io.github.seco.ClientConfig
import io.github.seco.Cluster
import io.github.seco.Digits
import io.github.seco.SecoClient
import java.io.File
import java.util.concurrent.Executors
import kotlin.math.PI
import kotlin.math.cos
import kotlin.math.sin
import kotlin.time.Duration.Companion.milliseconds
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.asCoroutineDispatcher
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withContext
import kotlinx.coroutines.withTimeout
import org.junit.jupiter.api.AfterAll
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.BeforeAll
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestInstance

/** The app without its screen, against real servers. */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
class DigitViewModelTest {
    private lateinit var cluster: Cluster

    /** As the main thread in the app. */
    private val thread = Executors.newSingleThreadExecutor().asCoroutineDispatcher()

    @BeforeAll
    fun start() {
        cluster = Cluster()
    }

    @AfterAll
    fun stop() {
        cluster.close()
        thread.close()
    }

    private fun connected(connect: suspend () -> Classifier, test: suspend (DigitViewModel) -> Unit) = runBlocking {
        withContext(thread) {
            val model = DigitViewModel(CoroutineScope(thread), 50.milliseconds, connect)
            try {
                model.start()
                test(model)
            } finally {
                model.close()
            }
        }
    }

    private fun connected(test: suspend (DigitViewModel) -> Unit) =
        connected({ SecoClassifier.connect(cluster.deployment, File(cluster.folder, "session")) }, test)

    private suspend fun DigitViewModel.until(reached: (DigitScreen) -> Boolean): DigitScreen =
        withTimeout(60_000.milliseconds) { screen.first(reached) }

    private fun DigitViewModel.draw(stroke: List<Point>) {
        strokeBegan(stroke.first())
        stroke.drop(1).forEach(::strokeMoved)
        strokeEnded()
    }

    private val one = List(20) { Point(200f, 100f + 15 * it) }
    private val zero = List(41) { Point((300 + 90 * sin(2 * PI * it / 40)).toFloat(), (300 + 140 * cos(2 * PI * it / 40)).toFloat()) }

    @Test
    fun `a drawing is answered, with what left the phone and what it cost`() = connected { model ->
        model.until { it.status == Status.Ready }
        model.draw(one)
        val screen = model.until { it.costs != null }
        assertEquals(Status.Answer(1), screen.status)
        val (sent, drawn) = screen.sent!! to screen.drawing.pixels()
        assertEquals(drawn.size, sent.size)
        // The paper is one colour; under its pad it is not.
        assertTrue(sent.toSet().size > 200 && drawn.toSet().size < 100)
        val costs = screen.costs!!
        println("bytes up: ${costs.private.bytesUp} private, ${costs.plain.bytesUp} plain")
        assertTrue(costs.private.bytesUp < costs.plain.bytesUp * 1.2)

        model.clear()
        val cleared = model.until { it.status == Status.Ready }
        assertTrue(cleared.drawing.isEmpty && cleared.sent == null && cleared.costs == null)
        model.draw(zero)
        assertEquals(Status.Answer(0), model.until { it.status is Status.Answer }.status)
    }

    @Test
    fun `a new stroke cancels the request for the old drawing`() = connected { model ->
        model.until { it.status == Status.Ready }
        model.draw(zero)
        model.until { it.status == Status.Running }
        model.clear()
        model.draw(one)
        val seen = mutableListOf<Status>()
        model.until { seen += it.status; it.costs != null }
        assertFalse(Status.Answer(0) in seen)
        assertEquals(Status.Answer(1), model.screen.value.status)
    }

    @Test
    fun `after a change of network the next drawing is answered`() = connected { model ->
        model.until { it.status == Status.Ready }
        model.networkChanged()
        model.draw(one)
        assertEquals(Status.Answer(1), model.until { it.status is Status.Answer }.status)
    }

    @Test
    fun `what fails is said, and tried again on request`() {
        var usable = false
        connected({
            SecoClassifier.connect(if (usable) cluster.deployment else "nonsense", File(cluster.folder, "other"))
        }) { model ->
            assertEquals(Status.Failed(Problem.NO_DEPLOYMENT), model.until { it.status is Status.Failed }.status)
            usable = true
            model.retry()
            assertNull(model.until { it.status == Status.Ready }.sent)
        }
    }

    @Test
    fun `servers that are gone are said to be`() {
        val short = Cluster()
        val text = short.deployment.also { short.close() }
        val config = ClientConfig(text, connectTimeoutMs = 1000u, requestTimeoutMs = 1000u)
        connected({ SecoClassifier.connect { SecoClient.connect(config) } }) { model ->
            val status = model.until { it.status is Status.Failed }.status
            assertTrue(status == Status.Failed(Problem.NO_CONNECTION) || status == Status.Failed(Problem.BUSY), "$status")
        }
    }

    @Test
    fun `a drawing becomes pixels as the network knows them`() {
        assertTrue(Drawing().pixels().all { it.toInt() == 0 })
        val pixels = Drawing(listOf(zero)).pixels().map { it.toInt() and 255 }
        val rows = pixels.chunked(Drawing.SIDE)
        val inked = rows.indices.filter { rows[it].any { value -> value > 0 } }
        assertTrue(inked.size in 18..23 && inked.first() in 2..6, "$inked")
        // Hollow, as drawn.
        assertEquals(0, rows[14][14])
        assertEquals(784, Digits.all[0].size)
    }
}
