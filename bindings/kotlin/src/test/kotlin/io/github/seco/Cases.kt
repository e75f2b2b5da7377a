package io.github.seco

import io.github.seco.testing.FakeSecoClient
import io.github.seco.testing.Reply
import java.io.File
import java.util.concurrent.CopyOnWriteArrayList
import kotlin.time.Duration.Companion.milliseconds
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.async
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.launch
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.boolean
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import kotlinx.serialization.json.long
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNotNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Assertions.fail

/** One of the cases of all languages. A key that is not known is a mistake, here or there. */
class Case(private val json: JsonObject) {
    init {
        json.knows("name", "real", "input_bits", "keep_sent", "replies", "calls")
    }

    val name: String get() = json.text("name")
    val real: Boolean get() = json.getValue("real").jsonPrimitive.boolean
    val keepSent: Boolean get() = json["keep_sent"]?.jsonPrimitive?.boolean ?: false

    fun fake(): SecoClient {
        val bits = json["input_bits"]?.jsonPrimitive?.int ?: 8
        return FakeSecoClient(*json.objects("replies").map(::reply).toTypedArray(), inputBits = bits, keepSent = keepSent)
    }

    suspend fun run(client: SecoClient) = json.objects("calls").forEach { client.make(it) }

    companion object {
        /** The text of every case. */
        val all: List<JsonObject> by lazy {
            val file = File(System.getProperty("seco.bindings"), "cases.json")
            Json.parseToJsonElement(file.readText()).jsonObject.apply { knows("about", "cases") }.objects("cases")
        }
    }
}

private val ERROR = arrayOf("error", "expected", "got", "problem", "retry_after_ms", "retry_after_s")

private fun reply(entry: JsonObject): Reply {
    entry.knows("label", "delay_ms", "progress", "cost", *ERROR)
    return Reply(
        label = entry["label"]?.jsonPrimitive?.int ?: 0,
        error = if ("error" in entry) failure(entry) else null,
        delay = (entry["delay_ms"]?.jsonPrimitive?.int ?: 0).milliseconds,
        progress = entry["progress"]?.jsonArray?.map(::progress) ?: listOf(RequestProgress.Sent),
        cost = entry["cost"]?.jsonObject?.let(::cost),
    )
}

private fun failure(entry: JsonObject): SecoException = when (val code = entry.number("error")) {
    1 -> SecoException.InvalidConfiguration("by script")
    2 -> SecoException.WrongInputSize(entry.number("expected").toUInt(), entry.number("got").toUInt(), "by script")
    3 -> SecoException.Network("by script")
    4 -> SecoException.Timeout("by script")
    5 -> SecoException.Busy(entry.number("retry_after_ms").toUInt())
    6 -> SecoException.Refused("by script")
    7 -> SecoException.UntrustedServer("by script")
    8 -> SecoException.IncompatibleServer("by script")
    9 -> SecoException.Storage("by script")
    10 -> SecoException.Closed("by script")
    11 -> {
        val seconds = entry["retry_after_s"]?.jsonPrimitive?.int ?: 0
        SecoException.TokenRefused(TokenProblem.valueOf(entry.text("problem").uppercase()), seconds.toUInt(), "by script")
    }
    else -> fail("no error has number $code")
}

/** What a failure tells beside its reason, as the cases have it. */
private fun details(failure: SecoException): Map<String, JsonPrimitive> = when (failure) {
    is SecoException.WrongInputSize -> mapOf(
        "expected" to JsonPrimitive(failure.expected.toLong()), "got" to JsonPrimitive(failure.got.toLong()),
    )
    is SecoException.Busy -> mapOf("retry_after_ms" to JsonPrimitive(failure.retryAfterMs.toLong()))
    is SecoException.TokenRefused -> mapOf(
        "problem" to JsonPrimitive(failure.problem.name.lowercase()),
        "retry_after_s" to JsonPrimitive(failure.retryAfterS.toLong()),
    )
    else -> emptyMap()
}

private fun progress(element: JsonElement): RequestProgress {
    val words = element.jsonPrimitive.content.split(' ')
    val numbers = words.drop(1).map(String::toUInt)
    return when (words[0] to numbers.size) {
        "sent" to 0 -> RequestProgress.Sent
        "queued" to 2 -> RequestProgress.Queued(numbers[0], numbers[1])
        "running" to 0 -> RequestProgress.Running
        "waiting" to 1 -> RequestProgress.Waiting(numbers[0])
        else -> fail("an unknown progress: $element")
    }
}

private val COST = arrayOf("bytes_up", "bytes_down", "datagrams_up", "datagrams_down", "wall_us")

private fun cost(entry: JsonObject): Cost {
    entry.knows(*COST)
    val (up, down, datagramsUp, datagramsDown, wall) = COST.map { entry.getValue(it).jsonPrimitive.long.toULong() }
    return Cost(up, down, datagramsUp, datagramsDown, null, wall)
}

/** Makes one call, and checks what comes of it. */
private suspend fun SecoClient.make(entry: JsonObject) {
    val seen = CopyOnWriteArrayList<RequestProgress>()
    try {
        when (val call = entry.text("call")) {
            "infer" -> {
                entry.knows("call", "digit", "length", "label", "progress", "progress_begins", *ERROR)
                val prediction = infer(entry.input()) { seen += it }
                assertEquals(entry["label"], JsonPrimitive(prediction.label.toInt()), "$entry")
                assertEquals(prediction.label, answers(prediction).single().label)
                assertEquals(prediction.label.toInt(), prediction.logits.run { indexOf(max()) })
                assertEquals(10, prediction.logits.size)
            }
            "infer_reals" -> {
                entry.knows("call", "length", "fill", "label", *ERROR)
                val real = when (entry["fill"]?.jsonPrimitive?.content) {
                    null -> 0f
                    "nan" -> Float.NaN
                    "infinity" -> Float.POSITIVE_INFINITY
                    else -> error("$entry")
                }
                val prediction = inferReals(FloatArray(entry.number("length")) { real })
                assertEquals(entry["label"], JsonPrimitive(prediction.label.toInt()), "$entry")
            }
            "infer_many" -> {
                entry.knows("call", "digits", "labels", *ERROR)
                val digits = entry.getValue("digits").jsonArray.map { Digits.all[it.jsonPrimitive.int] }
                val labels = inferMany(digits).map { JsonPrimitive(it.label.toInt()) }
                assertEquals(entry["labels"], JsonArray(labels), "$entry")
            }
            "probe" -> {
                entry.knows("call", "up", "down", *ERROR)
                probe(entry.number("up").toUInt(), entry.number("down").toUInt())
            }
            "plain_request" -> {
                entry.knows("call")
                plainRequest()
            }
            "close" -> {
                entry.knows("call")
                close()
            }
            "cancel" -> {
                entry.knows("call", "digit")
                coroutineScope {
                    val sent = CompletableDeferred<Unit>()
                    val request = async { infer(entry.input()) { sent.complete(Unit) } }
                    sent.await()
                    request.cancelAndJoin()
                    assertTrue(request.isCancelled)
                }
            }
            "close_during" -> {
                entry.knows("call", "digit", *ERROR)
                coroutineScope {
                    val sent = CompletableDeferred<Unit>()
                    launch { sent.await().also { close() } }
                    infer(entry.input()) { sent.complete(Unit) }
                }
            }
            "model" -> {
                entry.knows("call", "input_len", "input_bits", "values")
                assertEquals(entry["input_bits"]?.jsonPrimitive?.int ?: 8, model().inputBits.toInt(), "$entry")
                assertEquals(entry.number("input_len"), model().inputLen.toInt())
                assertEquals(entry.number("values"), model().values.toInt())
            }
            "transport" -> {
                entry.knows("call", "is")
                assertEquals(entry.text("is"), transport().name.lowercase())
            }
            "last_cost" -> lastCost().isAs(entry)
            "total_cost" -> totalCost().isAs(entry)
            "last_sent" -> {
                entry.knows("call", "length")
                val sent = lastSent()
                assertEquals(entry.getValue("length"), sent?.let { JsonPrimitive(it.size) } ?: JsonNull, "$entry")
                assertFalse(sent.contentEquals(Digits.all[14]))
            }
            "network_changed" -> {
                entry.knows("call")
                networkChanged()
            }
            else -> fail("an unknown call: $call")
        }
        assertFalse("error" in entry, "no error came: $entry")
    } catch (failure: SecoException) {
        assertEquals(entry["error"], JsonPrimitive(failure.code), "$entry: $failure")
        for (name in ERROR.drop(1)) entry[name]?.let { assertEquals(it, details(failure)[name], "$entry") }
        assertNotNull(failure.message)
    }
    entry["progress"]?.let { assertEquals(it.jsonArray.map(::progress), seen, "$entry") }
    entry["progress_begins"]?.jsonArray?.map(::progress)?.let { assertEquals(it, seen.take(it.size), "$entry") }
}

private fun Cost.isAs(entry: JsonObject) {
    entry.knows("call", "is", "at_least")
    assertTrue(("is" in entry) != ("at_least" in entry), "$entry")
    val numbers = COST.zip(listOf(bytesUp, bytesDown, datagramsUp, datagramsDown, wallUs)).toMap()
    for ((name, number) in entry["is"]?.jsonObject.orEmpty()) {
        assertEquals(number.jsonPrimitive.long.toULong(), numbers.getValue(name), "$entry: $this")
    }
    for ((name, number) in entry["at_least"]?.jsonObject.orEmpty()) {
        assertTrue(number.jsonPrimitive.long.toULong() <= numbers.getValue(name), "$entry: $this")
    }
}

private fun JsonObject.knows(vararg names: String) =
    assertTrue(keys.all { it in names }, "unknown: ${keys - names.toSet()} in $this")

private fun JsonObject.input(): ByteArray =
    if ("digit" in this) Digits.all[number("digit")] else ByteArray(number("length"))

private fun JsonObject.text(name: String): String = getValue(name).jsonPrimitive.content

private fun JsonObject.number(name: String): Int = getValue(name).jsonPrimitive.int

private fun JsonObject.objects(name: String): List<JsonObject> = getValue(name).jsonArray.map { it.jsonObject }
