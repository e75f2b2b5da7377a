package io.github.seco.testing

import io.github.seco.Answer
import io.github.seco.AnswerKind
import io.github.seco.Cost
import io.github.seco.LastOperator
import io.github.seco.ModelInfo
import io.github.seco.Prediction
import io.github.seco.RequestProgress
import io.github.seco.SecoClient
import io.github.seco.SecoException
import io.github.seco.Transport
import kotlinx.coroutines.Job
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.supervisorScope
import kotlinx.coroutines.withTimeoutOrNull
import kotlinx.coroutines.yield

/**
 * A client for an application's tests: it answers by script, without servers, network or the library.
 *
 * Two things are simpler than with a real one: real numbers need no `[model.quantise]`, and the texts of errors are the
 * test's. Both pass the same cases (`bindings/cases.json`).
 *
 * @param script a reply for each inference, in their order; when they are used up, label 0
 * @param inputLen bytes of an input; as many numbers, or half as many where a value has more than 8 bits
 * @param inputBits bits of an input value, 1 to 16
 * @param values how many integers the model gives
 * @param classes names of the classes
 * @param keepSent as in [io.github.seco.ClientConfig]
 */
class FakeSecoClient(
    vararg script: Reply,
    private val inputLen: Int = 784,
    private val inputBits: Int = 8,
    private val values: Int = 10,
    private val classes: List<String> = emptyList(),
    private val keepSent: Boolean = false,
) : SecoClient {
    // Any number of threads may use a client: what is changed is changed under this lock.
    private val lock = Any()
    private val script = ArrayDeque(script.asList())
    private var last = NOTHING
    private var total = NOTHING
    private var sent: ByteArray? = null

    /** Ends with [close]. */
    private val open = Job()

    private val valueBytes get() = if (inputBits > Byte.SIZE_BITS) 2 else 1

    init {
        require(inputBits in 1..16 && inputLen % valueBytes == 0) { "$inputLen bytes of values of $inputBits bits" }
        for (reply in script) {
            require(reply.logits == null || reply.logits.size == values) { "the model gives $values values: $reply" }
            require(reply.label in 0 until values) { "the model tells $values classes apart: $reply" }
        }
    }

    override suspend fun infer(input: ByteArray, progress: ((RequestProgress) -> Unit)?): Prediction =
        answer(taken(input.size), progress)

    override suspend fun inferReals(input: FloatArray, progress: ((RequestProgress) -> Unit)?): Prediction {
        val reply = taken(input.size, inputLen / valueBytes) {
            if (!input.all(Float::isFinite)) throw SecoException.InvalidConfiguration("a value is not a number")
        }
        return answer(reply, progress)
    }

    override suspend fun inferMany(inputs: List<ByteArray>): List<Prediction> {
        check()
        // The script's order is the inputs', whatever thread runs which.
        val replies = inputs.map { input -> attempted { taken(input.size) } }
        val answers = supervisorScope {
            replies.map { reply -> async { attempted { answer(reply.getOrThrow(), null) } } }.awaitAll()
        }
        return answers.map { it.getOrThrow() }
    }

    override suspend fun probe(up: UInt, down: UInt) {
        if (down > UShort.MAX_VALUE) throw SecoException.InvalidConfiguration("a probe of $down bytes is too long")
        check()
        spend(Cost(up.toULong(), down.toULong(), 1u, 1u, null, 0u))
    }

    override fun answers(prediction: Prediction): List<Answer> {
        check()
        val numbers = prediction.logits.map(Int::toDouble)
        val name = classes.getOrNull(prediction.label.toInt())
        val shape = listOf(values.toUInt())
        val kind = AnswerKind.CLASSES
        return listOf(
            Answer("output", shape, kind, LastOperator.NONE, numbers, numbers, null, prediction.label, name),
        )
    }

    override fun model(): ModelInfo {
        check()
        return ModelInfo(inputLen.toUInt(), inputBits.toUInt(), (ANSWER_BYTES * values).toUInt(), values.toUInt())
    }

    override fun transport(): Transport {
        check()
        return Transport.QUIC
    }

    override fun lastCost(): Cost {
        check()
        return synchronized(lock) { last }
    }

    override fun totalCost(): Cost {
        check()
        return synchronized(lock) { total }
    }

    override fun lastSent(): ByteArray? {
        check()
        return synchronized(lock) { sent?.copyOf() }
    }

    override fun networkChanged() = check()

    override fun close() {
        open.complete()
    }

    private fun check() {
        if (!open.isActive) throw SecoException.Closed("the client is closed")
    }

    /** The next reply of the script, for an input of this length that is otherwise [checked]. */
    private fun taken(length: Int, expected: Int = inputLen, checked: () -> Unit = {}): Reply {
        check()
        if (length != expected) {
            val reason = "the model takes $expected input values, got $length"
            throw SecoException.WrongInputSize(expected.toUInt(), length.toUInt(), reason)
        }
        checked()
        return synchronized(lock) { script.removeFirstOrNull() ?: Reply() }
    }

    private suspend fun answer(reply: Reply, progress: ((RequestProgress) -> Unit)?): Prediction {
        // Any bytes but the input's: the mask is not the fake's business.
        if (keepSent) synchronized(lock) { sent = ByteArray(inputLen) { (151 * it + 77).toByte() } }
        for (now in reply.progress) {
            try {
                progress?.invoke(now)
            } catch (_: Exception) {
                // As with the library, that does not end the request. What a test asserts there is an error, and does.
            }
        }
        withTimeoutOrNull(reply.delay) { open.join() }
        // Without a delay too: others get their turn, as while a real request waits.
        yield()
        check()
        spend(reply.cost ?: cost(reply))
        reply.error?.let { throw it }
        val logits = reply.logits ?: List(values) { if (it == reply.label) 1 else 0 }
        return Prediction(logits.indexOf(logits.max()).toUInt(), logits, reply.outsideCalibration)
    }

    private fun cost(reply: Reply) = Cost(
        inputLen.toULong(), (ANSWER_BYTES * values).toULong(), 1u, 1u, null, reply.delay.inWholeMicroseconds.toULong(),
    )

    private fun spend(cost: Cost) = synchronized(lock) {
        last = cost
        total = Cost(
            total.bytesUp + cost.bytesUp,
            total.bytesDown + cost.bytesDown,
            total.datagramsUp + cost.datagramsUp,
            total.datagramsDown + cost.datagramsDown,
            if (total.cpuUs == null) cost.cpuUs else total.cpuUs!! + (cost.cpuUs ?: 0u),
            total.wallUs + cost.wallUs,
        )
    }

    private inline fun <T> attempted(call: () -> T): Result<T> = try {
        Result.success(call())
    } catch (failure: SecoException) {
        Result.failure(failure)
    }

    private companion object {
        const val ANSWER_BYTES = 4
        val NOTHING = Cost(0u, 0u, 0u, 0u, null, 0u)
    }
}
