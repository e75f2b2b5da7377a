package io.github.seco

/**
 * A connection to a gateway with an open session: what [connect] makes, and what an application codes against, so that
 * its tests can bring another one: `io.github.seco.testing.FakeSecoClient`.
 *
 * Any number of requests may run at a time, of any threads. Cancelling the coroutine of a request cancels it and leaves
 * the client usable. Every failure is a [SecoException]; after each of them another request may be tried, but for
 * [SecoException.Closed]: after [close] every call throws it.
 */
interface SecoClient : AutoCloseable {
    /**
     * Runs the model on [input], one byte per value in the order of the model's input; two, the lower one first, where the
     * model's values have more than 8 bits.
     *
     * @param progress is told how the request is getting on, on any thread; it should return at once. What it throws is
     *   ignored.
     * @throws SecoException of any kind but `UntrustedServer`; `WrongInputSize` before anything is sent
     */
    suspend fun infer(input: ByteArray, progress: ((RequestProgress) -> Unit)? = null): Prediction

    /**
     * Runs the model on real numbers, in the order of the model's input. The deployment file (`[model.quantise]`) says
     * how they become input values, on the device; [Prediction.outsideCalibration] is also true if one was beyond these
     * and cut.
     *
     * @throws SecoException as [infer]; `InvalidConfiguration` for what is not a number, and where the file does not say
     */
    suspend fun inferReals(input: FloatArray, progress: ((RequestProgress) -> Unit)? = null): Prediction

    /**
     * Runs the model on every one of [inputs], up to eight at a time; results in their order.
     *
     * @throws SecoException that of the first input that failed; the others were run all the same
     */
    suspend fun inferMany(inputs: List<ByteArray>): List<Prediction>

    /**
     * Sends [up] random bytes and receives [down] (at most 65,535): what a plain request of that size costs.
     *
     * @throws SecoException as [infer]; `InvalidConfiguration` for what is too long
     */
    suspend fun probe(up: UInt, down: UInt)

    /** What a prediction of this client says, output by output: numbers, probabilities, class. Computed here and now. */
    fun answers(prediction: Prediction): List<Answer>

    /** What the model takes and gives. */
    fun model(): ModelInfo

    /** What carries the requests at present. */
    fun transport(): Transport

    /** Cost of the last request that ended, private or plain. */
    fun lastCost(): Cost

    /** Cost of everything so far: connecting, the session, and all requests. */
    fun totalCost(): Cost

    /** The masked input that the last request sent: what others get to see. Null without [ClientConfig.keepSent]. */
    fun lastSent(): ByteArray?

    /**
     * To be called when the device changed its network or woke up: the connection moves there.
     *
     * @throws SecoException `Network` if there is no new socket; the old one stays in use
     */
    fun networkChanged()

    /** Ends all requests with [SecoException.Closed], and tells the gateway, which is not waited for. */
    override fun close()

    companion object {
        /**
         * Connects, and opens a session or goes on with the one in [store]. Servers that are away, busy or restarting
         * are waited for as long as a request may take. Cancelling the coroutine cancels it.
         *
         * @param token the text of one, for a gateway that asks for it; not among the settings, which a log may show
         * @param log is told what the client does, on the library's thread: nothing that is secret. `LogcatLog` on Android,
         *   [JavaLog] everywhere, or one of the application's own
         * @throws SecoException of any kind but `WrongInputSize`
         */
        suspend fun connect(
            config: ClientConfig,
            store: SessionStore? = null,
            token: String? = null,
            log: ClientLog? = null,
        ): SecoClient = ConnectedClient(NativeClient.connect(config, store, token = token, log = log))
    }
}

/** A plain request as large as a private one, to compare [SecoClient.lastCost] with. */
suspend fun SecoClient.plainRequest() = model().run { probe(inputLen, answerLen) }
