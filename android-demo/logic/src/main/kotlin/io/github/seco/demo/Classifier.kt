package io.github.seco.demo

/** What the screen needs of a connection to the servers. */
interface Classifier : AutoCloseable {
    /** The digit in [pixels]; [queued] is told the place in the servers' queue, and null when they begin. */
    suspend fun classify(pixels: ByteArray, queued: (Int?) -> Unit): Int

    /** A plain request of the same size, for comparison. */
    suspend fun plainRequest()

    /** Cost of the last request of either kind. */
    fun lastCost(): RequestCost

    /** The bytes that left the phone in the last [classify]. */
    fun lastSent(): ByteArray?

    /** To be called when the phone changed its network or woke up. */
    fun networkChanged()
}

/** A failure that the user can do something about. */
class ClassifierException(val problem: Problem, cause: Throwable) : Exception(cause.message, cause)
