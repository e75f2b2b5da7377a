package io.github.seco

import kotlin.time.Duration.Companion.minutes
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.test.currentTime
import kotlinx.coroutines.test.runTest
import kotlinx.coroutines.withTimeout
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.long
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory

/** The cases of all languages, with the fake and with real servers. */
class CasesTest {
    @TestFactory
    fun `the fake`(): List<DynamicTest> = Case.all.map(::Case).map { dynamicTest(it.name) { withFake(it) } }

    @TestFactory
    fun `real servers`(): List<DynamicTest> = Case.all.map(::Case).filter { it.real }.map { case ->
        dynamicTest(case.name) {
            runBlocking {
                val config = ClientConfig(Cluster.shared.deployment, keepSent = case.keepSent)
                withTimeout(2.minutes) { SecoClient.connect(config).use { case.run(it) } }
            }
        }
    }

    @Test
    fun `whatever is wrong in a case is noticed`() {
        val altered = Case.all.flatMap(::alterations)
        for (case in altered) {
            val noticed = runCatching { withFake(Case(case)) }.isFailure
            assertTrue(noticed, "passes: $case")
        }
        assertTrue(altered.size > 300, "${altered.size}")
    }

    @OptIn(ExperimentalCoroutinesApi::class)
    private fun withFake(case: Case) = runTest {
        case.fake().use { case.run(it) }
        // The cases' long delays are never waited for: these requests are cancelled, or ended by closing.
        assertTrue(currentTime < 60_000, "$currentTime ms")
    }

    /** The case with one mistake, each in turn. */
    private fun alterations(case: JsonObject): List<JsonObject> {
        val replies = within(case, "replies") { reply -> unknown(reply).map { it as JsonObject } }
        val calls = within(case, "calls") { call ->
            val kind = JsonObject(call + ("call" to JsonPrimitive("unknown")))
            val less = OUTCOME.filter { it in call }.map { JsonObject(call - it) }
            val other = (call - GIVEN).flatMap { (name, value) -> other(value).map { JsonObject(call + (name to it)) } }
            listOf(JsonObject(call + UNKNOWN), kind) + less + other
        }
        return listOf(JsonObject(case + UNKNOWN)) + replies + calls
    }

    /** The case with another element in one of its lists. */
    private fun within(case: JsonObject, list: String, others: (JsonObject) -> List<JsonObject>): List<JsonObject> {
        val elements = case.getValue(list) as JsonArray
        return elements.flatMapIndexed { index, element ->
            others(element as JsonObject).map { other ->
                JsonObject(case + (list to JsonArray(elements.take(index) + other + elements.drop(index + 1))))
            }
        }
    }

    /** An unknown key in this or in what it holds. */
    private fun unknown(element: JsonElement): List<JsonElement> = when (element) {
        is JsonObject -> listOf(JsonObject(element + UNKNOWN)) +
            element.flatMap { (name, value) -> unknown(value).map { JsonObject(element + (name to it)) } }
        else -> emptyList()
    }

    /** Other values in the place of this one. */
    private fun other(element: JsonElement): List<JsonElement> = when (element) {
        is JsonObject -> listOf(JsonObject(element + UNKNOWN)) +
            element.flatMap { (name, value) -> other(value).map { JsonObject(element + (name to it)) } }
        is JsonArray -> listOf(JsonArray(element + JsonPrimitive("running"))) + element.flatMapIndexed { index, value ->
            other(value).map { JsonArray(element.take(index) + it + element.drop(index + 1)) }
        }
        JsonNull -> listOf(JsonPrimitive(1))
        is JsonPrimitive -> when {
            element.isString -> listOf(JsonPrimitive(if (element.content == "sent") "running" else "sent"))
            else -> listOf(JsonPrimitive(element.long + 1_000_000))
        }
    }

    private companion object {
        val UNKNOWN = "unknown" to JsonPrimitive(1)
        val OUTCOME = setOf("label", "labels", "error", "is", "at_least")

        /** What a call is given; the rest tells what comes of it. */
        val GIVEN = setOf("call", "digit", "digits", "up", "down")
    }
}
