package io.github.seco.demo

import io.github.seco.Cost
import io.github.seco.RequestProgress
import io.github.seco.SecoClient
import io.github.seco.SecoException
import io.github.seco.TokenProblem
import io.github.seco.testing.FakeSecoClient
import io.github.seco.testing.Reply
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.launch
import kotlinx.coroutines.test.TestScope
import kotlinx.coroutines.test.UnconfinedTestDispatcher
import kotlinx.coroutines.test.currentTime
import kotlinx.coroutines.test.runTest
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test

/** The app without its screen and without servers: what they may say, by script, in no time. */
@OptIn(ExperimentalCoroutinesApi::class)
class ScriptedTest {
    private val failures = listOf(
        SecoException.InvalidConfiguration("") to Problem.NO_DEPLOYMENT,
        SecoException.WrongInputSize(784u, 1u, "") to Problem.OTHER,
        SecoException.Network("") to Problem.NO_CONNECTION,
        SecoException.Timeout("") to Problem.BUSY,
        SecoException.Busy(1500u) to Problem.BUSY,
        SecoException.Refused("") to Problem.OTHER,
        SecoException.UntrustedServer("") to Problem.WRONG_SERVERS,
        SecoException.IncompatibleServer("") to Problem.WRONG_SERVERS,
        SecoException.Storage("") to Problem.OTHER,
        SecoException.Closed("") to Problem.OTHER,
        SecoException.TokenRefused(TokenProblem.MISSING, 0u, "") to Problem.OTHER,
    )

    /** A view model, and every screen that it showed. */
    private class Shown(val model: DigitViewModel) {
        val screens = mutableListOf<DigitScreen>()
        val statuses get() = screens.map { it.status }.zipWithNext().filter { it.first != it.second }.map { it.second }

        suspend fun until(reached: (DigitScreen) -> Boolean) = model.screen.first(reached)

        fun draw() {
            model.strokeBegan(Point(200f, 100f))
            model.strokeMoved(Point(200f, 400f))
            model.strokeEnded()
        }
    }

    private fun connected(connect: suspend () -> SecoClient, test: suspend TestScope.(Shown) -> Unit) = runTest {
        val shown = Shown(DigitViewModel(backgroundScope) { SecoClassifier.connect(connect) })
        backgroundScope.launch(UnconfinedTestDispatcher(testScheduler)) {
            shown.model.screen.collect { shown.screens += it }
        }
        shown.model.start()
        test(shown)
        shown.model.close()
    }

    private fun connected(client: SecoClient, test: suspend TestScope.(Shown) -> Unit) = connected({ client }, test)

    @Test
    fun `an answer is shown, and then what it cost beside a plain request`() {
        val cost = Cost(900u, 100u, 2u, 3u, 50u, 40_000u)
        connected(FakeSecoClient(Reply(label = 7, delay = 2.seconds, cost = cost), keepSent = true)) { shown ->
            shown.until { it.status == Status.Ready }
            shown.draw()
            val screen = shown.until { it.costs != null }
            assertEquals(listOf(Status.Ready, Status.Running, Status.Answer(7)), shown.statuses)
            assertEquals(RequestCost(900, 100, 5, 50, 40_000), screen.costs!!.private)
            assertEquals(RequestCost(784, 40, 2, null, 0), screen.costs.plain)
            assertEquals(784, screen.sent!!.size)
            assertFalse(screen.sent.contentEquals(screen.drawing.pixels()))
            // Half a second for another stroke, and the request's.
            assertEquals(2500, currentTime)
        }
    }

    @Test
    fun `the queue is shown while a request waits in it`() {
        val queued = listOf(RequestProgress.Sent, RequestProgress.Queued(3u, 900u), RequestProgress.Queued(1u, 300u))
        val client = FakeSecoClient(
            Reply(progress = queued, delay = 900.milliseconds),
            Reply(label = 1, progress = queued + RequestProgress.Running + RequestProgress.Waiting(2u)),
        )
        connected(client) { shown ->
            shown.draw()
            shown.until { it.status is Status.Answer }
            assertEquals(listOf(Status.Queued(2), Status.Queued(0), Status.Answer(0)), shown.statuses.takeLast(3))
            shown.draw()
            shown.until { it.status == Status.Answer(1) }
            assertEquals(listOf(Status.Queued(0), Status.Running, Status.Answer(1)), shown.statuses.takeLast(3))
        }
    }

    @Test
    fun `every failure of a request is said by what to do, and asking again works`() {
        val script = failures.flatMap { (failure, _) -> listOf(Reply(error = failure), Reply(label = 4)) }
        connected(FakeSecoClient(*script.toTypedArray())) { shown ->
            for ((failure, problem) in failures) {
                shown.draw()
                val screen = shown.until { it.status is Status.Failed }
                assertEquals(Status.Failed(problem), screen.status, "$failure")
                shown.model.retry()
                assertEquals(Status.Answer(4), shown.until { it.status is Status.Answer }.status)
                shown.model.clear()
                shown.until { it.status == Status.Ready }
            }
        }
    }

    @Test
    fun `every failure of connecting is said by what to do, and connecting again works`() {
        for ((failure, problem) in failures) {
            var tries = 0
            val client = FakeSecoClient()
            connected({ if (tries++ == 0) throw failure else client.also { delay(3.seconds) } }) { shown ->
                assertEquals(Status.Failed(problem), shown.until { it.status is Status.Failed }.status, "$failure")
                shown.model.retry()
                assertNull(shown.until { it.status == Status.Ready }.sent)
                assertEquals(2, tries)
                assertEquals(3000, currentTime)
            }
        }
    }

    @Test
    fun `a new stroke cancels the request for the old drawing`() {
        connected(FakeSecoClient(Reply(label = 8, delay = 60.seconds), Reply(label = 1))) { shown ->
            shown.draw()
            shown.until { it.status == Status.Running }
            // The finger stays where it is, longer than the request would have taken.
            shown.model.strokeBegan(Point(100f, 100f))
            delay(70.seconds)
            assertEquals(Status.Ready, shown.model.screen.value.status)
            shown.model.strokeEnded()
            shown.until { it.costs != null }
            assertEquals(Status.Answer(1), shown.model.screen.value.status)
            assertFalse(Status.Answer(8) in shown.statuses)
        }
    }

    @Test
    fun `strokes that follow one another are one drawing`() {
        connected(FakeSecoClient(Reply(label = 5))) { shown ->
            repeat(4) {
                shown.draw()
                delay(400.milliseconds)
            }
            assertEquals(Status.Answer(5), shown.until { it.status is Status.Answer }.status)
            delay(5.seconds)
            assertEquals(1, shown.statuses.count { it is Status.Answer })
        }
    }

    @Test
    fun `a change of network is passed on, and closing closes`() {
        val client = FakeSecoClient()
        connected(client) { shown ->
            shown.until { it.status == Status.Ready }
            shown.model.networkChanged()
            shown.model.close()
            assertThrows(SecoException.Closed::class.java) { client.model() }
        }
        // The app's view of a connection that is closed: no exception.
        SecoClassifier(client).networkChanged()
    }
}
