package io.github.seco

import java.nio.ByteBuffer
import java.nio.ByteOrder

/** The stable number of this kind of error, 1 to 11: for logs and reports. */
val SecoException.code: Int
    get() = when (this) {
        is SecoException.InvalidConfiguration -> 1
        is SecoException.WrongInputSize -> 2
        is SecoException.Network -> 3
        is SecoException.Timeout -> 4
        is SecoException.Busy -> 5
        is SecoException.Refused -> 6
        is SecoException.UntrustedServer -> 7
        is SecoException.IncompatibleServer -> 8
        is SecoException.Storage -> 9
        is SecoException.Closed -> 10
        is SecoException.TokenRefused -> 11
    }

/** [SecoClient.infer], telling [tell] how the request is getting on, on the library's thread. */
suspend fun SecoClient.infer(input: ByteArray, tell: (RequestProgress) -> Unit): Prediction =
    infer(input, Listener(tell))

/**
 * Runs the model on real numbers, in the order of the model's input. The deployment file (`[model.quantise]`) says how
 * they become input values, on the device; [Prediction.outsideCalibration] is also true if one was beyond these and
 * cut. What is not a number is refused.
 */
suspend fun SecoClient.inferReals(input: FloatArray, tell: ((RequestProgress) -> Unit)? = null): Prediction =
    infer(input.littleEndian(), tell?.let { Listener(it) }, form = InputForm.FLOATS)

internal fun FloatArray.littleEndian(): ByteArray =
    ByteBuffer.allocate(Float.SIZE_BYTES * size).order(ByteOrder.LITTLE_ENDIAN)
        .also { it.asFloatBuffer().put(this) }.array()

private class Listener(private val tell: (RequestProgress) -> Unit) : ProgressListener {
    override fun onProgress(progress: RequestProgress) = tell(progress)
}

/** A plain request as large as a private one, to compare [SecoClient.lastCost] with. */
suspend fun SecoClient.plainRequest() = model().run { probe(inputLen, answerLen) }
