package io.github.seco.demo

/** Everything the one screen shows. */
data class DigitScreen(
    val drawing: Drawing = Drawing(),
    val status: Status = Status.Connecting,
    /** The bytes that left the phone for the last answer: the digit under its one-time pad. */
    val sent: ByteArray? = null,
    val costs: Costs? = null,
) {
    // Arrays are compared by identity otherwise, and every state would count as a new one.
    override fun equals(other: Any?): Boolean =
        other is DigitScreen && drawing == other.drawing && status == other.status &&
            sent.contentEquals(other.sent) && costs == other.costs

    override fun hashCode(): Int = listOf(drawing, status, sent.contentHashCode(), costs).hashCode()
}

/** Where the app is. */
sealed interface Status {
    /** Shaking hands with the gateway and opening or resuming the session. */
    data object Connecting : Status

    /** Connected, nothing asked. */
    data object Ready : Status

    /** Waiting for the servers, [position] requests ahead. */
    data class Queued(val position: Int) : Status

    /** The servers compute. */
    data object Running : Status

    /** The network's answer. */
    data class Answer(val digit: Int) : Status

    /** It did not work; [problem] says what the user can do about it. */
    data class Failed(val problem: Problem) : Status
}

/** What can go wrong, by what the user can do. */
enum class Problem {
    /** No usable deployment file: see the app's README. */
    NO_DEPLOYMENT,

    /** The gateway cannot be reached: check the network, and that the cluster runs. */
    NO_CONNECTION,

    /** No answer in time, or the servers are busy: try again. */
    BUSY,

    /** The deployment file is not that of these servers: fetch the current one. */
    WRONG_SERVERS,

    /** Anything else: try again. */
    OTHER,
}

/** One request as the network and the processor saw it. */
data class RequestCost(
    val bytesUp: Long,
    val bytesDown: Long,
    val packets: Long,
    /** Null where the system has no such clock. */
    val cpuMicros: Long?,
    val wallMicros: Long,
)

/** The last private request beside a plain one: the same number of bytes without privacy. */
data class Costs(val private: RequestCost, val plain: RequestCost)
