package io.github.seco

import java.io.File
import kotlinx.coroutines.runBlocking
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.TestFactory

/** What a package sees of the vectors of all languages (`sdk/core/tests/vectors/README.md`). */
class VectorsTest {
    private val folder = File(System.getProperty("seco.bindings"), "../sdk/core/tests/vectors")
    private val deployments = read("deployment.json")

    private fun read(name: String) =
        Json.parseToJsonElement(File(folder, "wire-2/$name").readText()).jsonObject

    private fun JsonObject.list(name: String) = getValue(name).jsonArray

    private fun JsonObject.text(name: String) = getValue(name).jsonPrimitive.content

    private fun JsonObject.deployment(): String {
        this["text"]?.let { lines -> return lines.jsonArray.joinToString("\n") { it.jsonPrimitive.content } }
        val of = deployments.list("good").map { it.jsonObject }.single { it.text("name") == text("of") }
        return list("edits").fold(of.deployment()) { text, edit ->
            val (from, to) = edit.jsonArray.map { it.jsonPrimitive.content }
            check(from in text) { from }
            text.replaceFirst(from, to)
        }
    }

    private fun entries(section: String): List<JsonObject> = deployments.list(section).map { it.jsonObject }

    private fun fails(deployment: String): SecoException = assertThrows(SecoException::class.java) {
        // Where nobody is, it is tried for as long as it may be.
        val config = ClientConfig(deployment, connectTimeoutMs = 500u, transport = Transport.TCP)
        runBlocking { SecoClient.connect(config).close() }
    }

    @TestFactory
    fun `a good deployment file leads to an address where nobody is`(): List<DynamicTest> =
        entries("good").map { entry ->
            dynamicTest(entry.text("name")) {
                assertEquals(entry.getValue("error").jsonPrimitive.int, fails(entry.deployment()).code)
            }
        }

    @TestFactory
    fun `a bad deployment file is refused where it is wrong`(): List<DynamicTest> = entries("bad").map { entry ->
        dynamicTest(entry.text("name")) {
            val failure = fails(entry.deployment())
            assertEquals(entry.getValue("error").jsonPrimitive.int, failure.code)
            val told = failure.message.orEmpty()
            assertTrue("deployment, ${entry.text("at")}: " in told && entry.text("problem") in told, told)
        }
    }

    @OptIn(ExperimentalStdlibApi::class)
    private fun JsonObject.blob(): ByteArray =
        (this["blob"]?.jsonPrimitive?.content ?: File(folder, text("file")).readText().filterNot(Char::isWhitespace))
            .hexToByteArray()

    @TestFactory
    fun `a new session takes the place of one that is old, damaged or other servers'`(): List<DynamicTest> {
        val sessions = read("session.json")
        return (sessions.list("bad") + sessions.list("good")).map { it.jsonObject }.map { entry ->
            dynamicTest(entry.text("name")) {
                val store = object : SessionStore {
                    var saves = 0
                    var saved: ByteArray = entry.blob()
                    override fun load() = saved
                    override fun save(session: ByteArray) {
                        saves += 1
                        saved = session
                    }
                }
                runBlocking {
                    val config = ClientConfig(Cluster.shared.deployment)
                    SecoClient.connect(config, store).close()
                    SecoClient.connect(config, store).use {
                        assertEquals(Digits.label(14), it.infer(Digits.all[14]).label.toInt())
                    }
                }
                assertFalse(store.saved.contentEquals(entry.blob()))
                assertEquals(1, store.saves, "the new one is resumed")
            }
        }
    }
}
