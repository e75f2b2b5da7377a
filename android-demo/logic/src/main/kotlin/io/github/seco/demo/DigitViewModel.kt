package io.github.seco.demo

import kotlin.time.Duration
import kotlin.time.Duration.Companion.milliseconds
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Deferred
import kotlinx.coroutines.Job
import kotlinx.coroutines.async
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.flow.update
import kotlinx.coroutines.launch

/**
 * All that the app does, without a screen.
 *
 * Call it from the thread that [scope] runs on (the main thread in the app). [connect] makes a connection and
 * throws [ClassifierException]; it is called again when that failed. A drawing is asked about when no stroke
 * follows for [pause].
 */
class DigitViewModel(
    private val scope: CoroutineScope,
    private val pause: Duration = 500.milliseconds,
    private val connect: suspend () -> Classifier,
) {
    private val state = MutableStateFlow(DigitScreen())
    private var connecting: Deferred<Result<Classifier>>? = null
    private var work: Job? = null

    /** What to show. */
    val screen: StateFlow<DigitScreen> = state.asStateFlow()

    /** Connects. To be called once at the start; afterwards [retry] does it. */
    fun start() = begin {
        connected()
        show(Status.Ready)
    }

    /** The finger went down. A request under way is cancelled: its answer would be for another drawing. */
    fun strokeBegan(point: Point) {
        work?.cancel()
        state.update { it.copy(drawing = it.drawing.begin(point), status = it.status.withoutRequest()) }
    }

    /** The finger moved. */
    fun strokeMoved(point: Point) = state.update { it.copy(drawing = it.drawing.extend(point)) }

    /** The finger went up. */
    fun strokeEnded() = begin {
        delay(pause)
        ask()
    }

    /** Empties the drawing and cancels what is under way. */
    fun clear() {
        state.update { DigitScreen(status = it.status.withoutRequest()) }
        start()
    }

    /** Does again what failed. */
    fun retry() = begin { ask() }

    /** The phone changed its network or came to the front. */
    fun networkChanged() {
        current()?.networkChanged()
    }

    /** Ends the connection. */
    fun close() {
        work?.cancel()
        current()?.close()
        connecting?.cancel()
        connecting = null
    }

    private suspend fun ask() {
        val classifier = connected()
        val drawing = state.value.drawing
        if (drawing.isEmpty) return show(Status.Ready)
        show(Status.Running)
        val digit = coroutineScope {
            classifier.classify(drawing.pixels()) { position ->
                // It comes from any thread. As part of this request it is cancelled with it, and shown
                // before the answer.
                launch { show(if (position == null) Status.Running else Status.Queued(position)) }
            }
        }
        val private = classifier.lastCost()
        // The answer first: the comparison is of interest, but nobody should wait for it.
        state.update { it.copy(status = Status.Answer(digit), sent = classifier.lastSent(), costs = null) }
        classifier.plainRequest()
        state.update { it.copy(costs = Costs(private, classifier.lastCost())) }
    }

    /** The connection. Cancelling who waits for it does not cancel connecting. */
    private suspend fun connected(): Classifier {
        val attempt = connecting ?: scope.async {
            try {
                Result.success(connect())
            } catch (failure: ClassifierException) {
                Result.failure(failure)
            }
        }.also { connecting = it }
        if (!attempt.isCompleted) show(Status.Connecting)
        val result = attempt.await()
        if (result.isFailure && connecting === attempt) connecting = null
        return result.getOrThrow()
    }

    private fun current(): Classifier? =
        connecting?.takeIf { it.isCompleted && !it.isCancelled }?.getCompleted()?.getOrNull()

    /** Runs [action] instead of what is under way. */
    private fun begin(action: suspend () -> Unit) {
        val before = work
        // Here and not in the new work, which may be cancelled before it begins.
        before?.cancel()
        work = scope.launch {
            before?.join()
            try {
                action()
            } catch (failure: ClassifierException) {
                show(Status.Failed(failure.problem))
            }
        }
    }

    private fun show(status: Status) = state.update { it.copy(status = status) }
}

/** What remains when the request is cancelled. */
private fun Status.withoutRequest(): Status = if (this == Status.Connecting) this else Status.Ready
