package io.github.seco.testing

import io.github.seco.Cost
import io.github.seco.RequestProgress
import io.github.seco.SecoException
import kotlin.time.Duration

/** What becomes of one inference of a [FakeSecoClient]. */
data class Reply(
    /** The class; used where there are no [logits]. */
    val label: Int = 0,
    /** The model's integers. */
    val logits: List<Int>? = null,
    /** Instead of an answer. */
    val error: SecoException? = null,
    /** Time until it comes, after all [progress] was told: that of the coroutine, which is virtual in `runTest`. */
    val delay: Duration = Duration.ZERO,
    /** What is told at once. */
    val progress: List<RequestProgress> = listOf(RequestProgress.Sent),
    /** What it costs; null counts the bytes of input and answer, and the [delay]. */
    val cost: Cost? = null,
    val outsideCalibration: Boolean = false,
)
