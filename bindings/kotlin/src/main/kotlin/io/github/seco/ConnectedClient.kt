package io.github.seco

import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.concurrent.atomic.AtomicBoolean
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.launch

/** The library's client. */
internal class ConnectedClient(private val native: NativeClient) : SecoClient {
    private val closed = AtomicBoolean(false)

    override suspend fun infer(input: ByteArray, progress: ((RequestProgress) -> Unit)?): Prediction =
        open { native.infer(input, progress?.let(::Listener)) }

    override suspend fun inferReals(input: FloatArray, progress: ((RequestProgress) -> Unit)?): Prediction =
        open { native.infer(input.littleEndian(), progress?.let(::Listener), form = InputForm.FLOATS) }

    override suspend fun inferMany(inputs: List<ByteArray>): List<Prediction> = open { native.inferMany(inputs) }

    override suspend fun probe(up: UInt, down: UInt) = open { native.probe(up, down) }

    override fun answers(prediction: Prediction): List<Answer> = open { native.answers(prediction) }

    override fun model(): ModelInfo = open { native.model() }

    override fun transport(): Transport = open { native.transport() }

    override fun lastCost(): Cost = open { native.lastCost() }

    override fun totalCost(): Cost = open { native.totalCost() }

    override fun lastSent(): ByteArray? = open { native.lastSent() }

    override fun networkChanged() = open { native.networkChanged() }

    override fun close() {
        if (!closed.compareAndSet(false, true)) return
        // The library begins with it before this returns. What it holds, keys among it, is released at the end.
        CoroutineScope(Dispatchers.Default).launch(start = CoroutineStart.UNDISPATCHED) {
            native.use { it.shutdown() }
        }
    }

    private inline fun <T> open(call: () -> T): T {
        if (closed.get()) throw closed()
        return try {
            call()
        } catch (cancelled: CancellationException) {
            throw cancelled
        } catch (_: IllegalStateException) {
            // Released by another thread since the question above.
            throw closed()
        }
    }

    private fun closed() = SecoException.Closed("the client is closed")
}

/** Four bytes for each. */
internal fun FloatArray.littleEndian(): ByteArray =
    ByteBuffer.allocate(Float.SIZE_BYTES * size).order(ByteOrder.LITTLE_ENDIAN)
        .also { it.asFloatBuffer().put(this) }.array()

private class Listener(private val tell: (RequestProgress) -> Unit) : ProgressListener {
    override fun onProgress(progress: RequestProgress) = tell(progress)
}
