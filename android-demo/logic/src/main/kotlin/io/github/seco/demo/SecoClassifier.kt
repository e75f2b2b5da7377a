package io.github.seco.demo

import io.github.seco.ClientConfig
import io.github.seco.ClientLog
import io.github.seco.FileSessionStore
import io.github.seco.RequestProgress
import io.github.seco.SecoClient
import io.github.seco.SecoException
import io.github.seco.plainRequest
import java.io.File

/** The servers, through the SDK. */
class SecoClassifier(private val client: SecoClient) : Classifier {
    override suspend fun classify(pixels: ByteArray, queued: (Int?) -> Unit): Int = explained {
        client.infer(pixels) { progress ->
            when (progress) {
                is RequestProgress.Queued -> queued(progress.position.toInt() - 1)
                RequestProgress.Running -> queued(null)
                RequestProgress.Sent, is RequestProgress.Waiting -> {}
            }
        }.label.toInt()
    }

    override suspend fun plainRequest() = explained { client.plainRequest() }

    override fun lastCost(): RequestCost = client.lastCost().run {
        RequestCost(
            bytesUp.toLong(), bytesDown.toLong(), (datagramsUp + datagramsDown).toLong(),
            cpuUs?.toLong(), wallUs.toLong(),
        )
    }

    override fun lastSent(): ByteArray? = client.lastSent()

    override fun networkChanged() = try {
        client.networkChanged()
    } catch (_: SecoException) {
        // The old socket stays. The next request finds out whether it still works.
    }

    override fun close() = client.close()

    companion object {
        /** Connects to the servers in [deployment] (the file's text), with the session in [session] if there is one. */
        suspend fun connect(deployment: String, session: File, log: ClientLog? = null): SecoClassifier = connect {
            // An outage is waited for, but not for as long as a queue may be: somebody looks at the screen.
            val config = ClientConfig(deployment, requestTimeoutMs = 20_000u, keepSent = true)
            SecoClient.connect(config, FileSessionStore(session), log = log)
        }

        /** With the connection that [open] makes. */
        suspend fun connect(open: suspend () -> SecoClient): SecoClassifier = explained { SecoClassifier(open()) }

        private inline fun <T> explained(call: () -> T): T = try {
            call()
        } catch (failure: SecoException) {
            val problem = when (failure) {
                is SecoException.InvalidConfiguration -> Problem.NO_DEPLOYMENT
                is SecoException.Network -> Problem.NO_CONNECTION
                is SecoException.Timeout, is SecoException.Busy -> Problem.BUSY
                is SecoException.UntrustedServer, is SecoException.IncompatibleServer -> Problem.WRONG_SERVERS
                else -> Problem.OTHER
            }
            throw ClassifierException(problem, failure)
        }
    }
}
