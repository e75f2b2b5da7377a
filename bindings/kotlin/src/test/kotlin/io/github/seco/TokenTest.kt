package io.github.seco

import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.Timeout

/** A gateway that serves only who shows a token. */
@Timeout(300)
class TokenTest {
    @Test
    fun `what is wrong with a token is told, and the right one is served`() = Cluster("mlp", 2, guarded = true).use { cluster ->
        val config = ClientConfig(cluster.deployment)
        fun failure(token: String?) = assertThrows(SecoException::class.java) {
            runBlocking { SecoClient.connect(config, token = token) }
        }
        for ((token, problem) in listOf(null to TokenProblem.MISSING, "seco_" + "0".repeat(48) to TokenProblem.INVALID)) {
            val told = failure(token) as SecoException.TokenRefused
            assertEquals(problem, told.problem)
            assertEquals(11, told.code)
            assertEquals(0u, told.retryAfterS)
        }
        val secret = "seco_" + "5".repeat(40)
        val told = failure(secret)
        assertEquals(1, told.code)
        assertFalse("555" in told.toString(), "a secret is not shown")
        runBlocking {
            SecoClient.connect(config, token = cluster.token).use { client ->
                assertEquals(10, client.infer(Digits.small[0]).logits.size)
            }
        }
        // Its deployment file names no owner, so that nobody may replace it.
        val ownerless = assertThrows(SecoException::class.java) { runBlocking { fetchDeploymentUpdate(config) } }
        assertEquals(1, ownerless.code)
    }
}
