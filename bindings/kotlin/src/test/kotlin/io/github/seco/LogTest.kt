package io.github.seco

import java.util.Collections
import java.util.logging.Handler
import java.util.logging.Level
import java.util.logging.LogRecord
import java.util.logging.Logger
import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.Timeout

/** What a client tells of its work. */
@Timeout(300)
class LogTest {
    private val config = ClientConfig(Cluster.shared.deployment)

    @Test
    fun `what a client does is told in order`() {
        val told = Collections.synchronizedList(mutableListOf<Pair<LogLevel, String>>())
        val log = object : ClientLog {
            override fun log(level: LogLevel, name: String, text: String) {
                told += level to name
                error("what a log throws harms nothing")
            }
        }
        runBlocking {
            SecoClient.connect(config, log = log).use { client ->
                client.infer(Digits.all[0])
                client.networkChanged()
                assertEquals(
                    listOf(
                        LogLevel.INFO to "connected", LogLevel.INFO to "session_opened",
                        LogLevel.DEBUG to "answered", LogLevel.DEBUG to "network_changed",
                    ),
                    told.toList(),
                )
            }
        }
    }

    @Test
    fun `Java's logging has it`() {
        val records = Collections.synchronizedList(mutableListOf<LogRecord>())
        val logger = Logger.getAnonymousLogger().apply {
            level = Level.ALL
            useParentHandlers = false
            addHandler(object : Handler() {
                override fun publish(record: LogRecord) { records += record }
                override fun flush() {}
                override fun close() {}
            })
        }
        runBlocking { SecoClient.connect(config, log = JavaLog(logger)).use { it.infer(Digits.all[0]) } }
        assertEquals(listOf(Level.INFO, Level.INFO, Level.FINE), records.take(3).map { it.level })
        assertTrue(records[0].message.startsWith("connected over QUIC in "), records[0].message)
    }
}
