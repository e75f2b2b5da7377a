package io.github.seco

import io.github.seco.testing.FakeSecoClient
import java.io.File
import java.util.concurrent.CompletableFuture
import java.util.concurrent.TimeUnit
import kotlin.time.Duration.Companion.milliseconds
import kotlinx.coroutines.delay
import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNotEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.Timeout

/** The package against real servers. */
@Timeout(300)
class SecoClientTest {
    private val cluster = Cluster.shared

    private fun client(config: ClientConfig = ClientConfig(cluster.deployment), test: suspend (SecoClient) -> Unit) =
        runBlocking { SecoClient.connect(config).use { test(it) } }

    private fun fails(call: suspend () -> Unit): SecoException =
        assertThrows(SecoException::class.java) { runBlocking { call() } }

    @Test
    fun `twenty digits are right and equal to the trained network's choice`() = client { client ->
        var known = 0
        Digits.all.forEachIndexed { index, digit ->
            val prediction = client.infer(digit)
            assertEquals(Digits.label(index), prediction.label.toInt())
            val best = prediction.logits.withIndex().maxBy { it.value }.index
            assertEquals(prediction.label.toInt(), best)
            Digits.expected(index)?.let { known += 1; assertEquals(it, best) }
        }
        println(if (known == 0) "SKIPPED expected logits: the models' outputs are not here" else "$known expected")
        assertEquals(784, client.model().inputLen.toInt())
        assertTrue(client.lastCost().bytesUp > 784u)
    }

    @Test
    fun `an answer is read as numbers and a class with its name`() {
        val names = listOf("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
        val classes = names.joinToString(prefix = "classes = [", postfix = "]") { "\"$it\"" }
        val named = cluster.deployment.replace("[[model.outputs]]", "[[model.outputs]]\n$classes")
        client(ClientConfig(named)) { client ->
            val prediction = client.infer(Digits.all[0])
            val answer = client.answers(prediction).single()
            assertEquals(AnswerKind.CLASSES, answer.kind)
            assertEquals(prediction.label, answer.label)
            assertEquals(names[Digits.label(0)], answer.className)
            assertEquals(client.model().values.toInt(), answer.values.size)
            // The same order, and one scale for all.
            val scales = prediction.logits.zip(answer.values).filter { it.first != 0 }.map { it.second / it.first }
            assertTrue(scales.all { it > 0 && kotlin.math.abs(it / scales[0] - 1) < 1e-9 }, "$scales")
            assertEquals(LastOperator.NONE, answer.last)
            assertEquals(answer.values, answer.finished)
            assertNull(answer.probabilities)
            // Parts that do not belong together are no crash.
            val empty = client.answers(prediction.copy(logits = emptyList())).single()
            assertTrue(empty.values.isEmpty() && empty.probabilities == null)
        }
    }

    @Test
    fun `what the network does last is done on the device`() {
        val softmax = cluster.deployment.replace("last = \"none\"", "last = \"softmax\"")
        assertNotEquals(cluster.deployment, softmax)
        client(ClientConfig(softmax)) { client ->
            val prediction = client.infer(Digits.all[0])
            val answer = client.answers(prediction).single()
            assertEquals(LastOperator.SOFTMAX, answer.last)
            val probabilities = answer.probabilities!!
            assertEquals(1.0, probabilities.sum(), 1e-9)
            assertEquals(probabilities, answer.finished)
            assertEquals(probabilities.max(), probabilities[prediction.label.toInt()])
            assertNotEquals(answer.values, answer.finished)
        }
    }

    @Test
    fun `real numbers become the values that the deployment says`() {
        val table = "[model.quantise]\nscale = [${1.0 / 255}]\noffset = [0]\n\n[[model.outputs]]"
        client(ClientConfig(cluster.deployment.replaceFirst("[[model.outputs]]", table))) { client ->
            val digit = Digits.all[0]
            val reals = FloatArray(digit.size) { (digit[it].toInt() and 255) / 255f }
            assertEquals(client.infer(digit), client.inferReals(reals))
            reals[0] = 1.5f
            assertTrue(client.inferReals(reals).outsideCalibration)
            reals[0] = Float.NaN
            assertEquals(1, fails { client.inferReals(reals) }.code)
            assertEquals(2, fails { client.inferReals(FloatArray(5)) }.code)
        }
    }

    @Test
    fun `progress is told, and what a listener throws is its own affair`() = client { client ->
        val seen = mutableListOf<RequestProgress>()
        client.infer(Digits.all[0]) {
            seen += it
            throw IllegalStateException("of the application")
        }
        assertEquals(RequestProgress.Sent, seen.first())
    }

    @Test
    fun `an input beyond the calibrated range is told`() {
        val (known, narrow) = "calibrated = [0, 255]\n" to "calibrated = [1, 255]\n"
        assertTrue(known in cluster.deployment, cluster.deployment)
        client { assertFalse(it.infer(Digits.all[0]).outsideCalibration) }
        client(ClientConfig(cluster.deployment.replace(known, narrow))) {
            val prediction = it.infer(Digits.all[0])
            assertTrue(prediction.outsideCalibration)
            assertEquals(Digits.label(0), prediction.label.toInt())
            assertFalse(it.infer(ByteArray(784) { 1 }).outsideCalibration)
        }
        // Files of earlier versions do not tell the range.
        client(ClientConfig(cluster.deployment.replace(known, ""))) {
            assertFalse(it.infer(ByteArray(784) { -1 }).outsideCalibration)
        }
    }

    @Test
    fun `a wrong input size is refused here`() = client { client ->
        val error = fails { client.infer(ByteArray(100)) }
        assertEquals(2, error.code)
        assertEquals(784u, (error as SecoException.WrongInputSize).expected)
        assertTrue("1 x 28 x 28" in error.reason, error.reason)
        assertEquals(Digits.label(0), client.infer(Digits.all[0]).label.toInt())
    }

    @Test
    fun `settings and deployment are checked`() {
        assertEquals(1, fails { SecoClient.connect(ClientConfig("nonsense")) }.code)
        assertEquals(1, fails { SecoClient.connect(ClientConfig(cluster.deployment, connectTimeoutMs = 0u)) }.code)
        assertEquals(1, fails { rgbPlanes(byteArrayOf(1, 2), 3u) }.code)
        assertArrayEquals(byteArrayOf(1, 4, 2, 5, 3, 6), rgbPlanes(byteArrayOf(1, 2, 3, 4, 5, 6), 3u))
    }

    @Test
    fun `what leaves the device is kept on request, and is not the digit`() {
        client { assertNull(it.also { it.infer(Digits.all[0]) }.lastSent()) }
        client(ClientConfig(cluster.deployment, keepSent = true)) { client ->
            client.infer(Digits.all[0])
            val first = client.lastSent()!!
            client.infer(Digits.all[0])
            assertEquals(784, first.size)
            assertFalse(first.contentEquals(Digits.all[0]))
            assertFalse(first.contentEquals(client.lastSent()!!))
        }
    }

    @Test
    fun `a private request sends what a plain one sends`() = client { client ->
        suspend fun bytesUp(call: suspend () -> Unit): List<ULong> = List(5) {
            delay(200.milliseconds) // acknowledgements of the one before
            call()
            client.lastCost().bytesUp
        }
        val private = bytesUp { client.infer(Digits.all[0]) }.sorted()[2]
        val plain = bytesUp { client.plainRequest() }.sorted()[2]
        println("bytes up: $private private, $plain plain")
        assertTrue(private.toDouble() < plain.toDouble() * 1.2 && plain > 784u)
    }

    @Test
    fun `TCP instead of QUIC`() = client(ClientConfig(cluster.deployment, transport = Transport.TCP)) { client ->
        assertEquals(Transport.TCP, client.transport())
        assertEquals(Digits.label(3), client.infer(Digits.all[3]).label.toInt())
    }

    @Test
    fun `after closing every call says so, and nothing is kept`() = runBlocking {
        suspend fun closed() = SecoClient.connect(ClientConfig(cluster.deployment)).also { it.infer(Digits.all[0]) }.apply {
            close()
        }
        for (client in listOf(closed(), FakeSecoClient().also { it.close() })) {
            val calls = listOf<suspend () -> Any?>(
                { client.infer(Digits.all[0]) }, { client.inferReals(FloatArray(784)) }, { client.inferMany(emptyList()) },
                { client.probe(1u, 1u) }, { client.answers(Prediction(0u, List(10) { 0 }, false)) }, { client.model() },
                { client.transport() }, { client.lastCost() }, { client.totalCost() }, { client.lastSent() },
                { client.networkChanged() }, { client.plainRequest() },
            )
            for (call in calls) assertEquals(10, fails { call() }.code)
            client.close()
        }
        val files = openFiles()
        repeat(20) { closed() }
        // Closing goes on behind the call.
        val end = System.nanoTime() + TimeUnit.SECONDS.toNanos(20)
        while (openFiles() > files + 2) {
            assertTrue(System.nanoTime() < end, "${openFiles()} files are open, $files before")
            delay(50.milliseconds)
        }
    }

    @Test
    fun `a session goes on in another process without sealing`() {
        val store = File(cluster.folder, "session")
        val opened = anotherProcess(store)
        val resumed = anotherProcess(store)
        println("bytes up of connecting: ${opened.first} new, ${resumed.first} resumed")
        assertEquals(listOf(Digits.label(5), Digits.label(5)), listOf(opened.second, resumed.second))
        // Three sealed keys have 3.5 KB.
        assertTrue(opened.first - resumed.first > 3000)
    }

    @Test
    fun `two processes use one session at the same time`() {
        val store = File(cluster.folder, "shared")
        repeat(2) {
            val both = List(2) { CompletableFuture.supplyAsync { anotherProcess(store) } }
            assertEquals(List(2) { Digits.label(5) }, both.map { it.get().second })
        }
    }

    @Test
    fun `a session's age is a setting`() {
        assertEquals(1, fails { SecoClient.connect(ClientConfig(cluster.deployment, sessionMaxAgeDays = 0u)) }.code)
    }

    /** Bytes up of connecting, and the label, of a JVM of its own. */
    private fun anotherProcess(store: File): Pair<Long, Int> {
        val deployment = File.createTempFile("copy", ".toml", cluster.folder).apply { writeText(cluster.deployment) }
        val properties = listOf("seco.data", "seco.models").map { "-D$it=${System.getProperty(it)}" }
        val java = File(System.getProperty("java.home"), "bin/java").path
        val command = listOf(java, "-cp", System.getProperty("java.class.path")) + properties +
            listOf("io.github.seco.OneRequestKt", deployment.path, store.path)
        val process = ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start()
        val output = process.inputStream.bufferedReader().readText()
        assertTrue(process.waitFor(60, TimeUnit.SECONDS) && process.exitValue() == 0, output)
        val (bytes, label) = output.trim().split(' ')
        return bytes.toLong() to label.toInt()
    }

    @Test
    fun `a store that fails is an error, and one that recovers is used again`() = runBlocking {
        val store = object : SessionStore {
            var broken = true
            var saved: ByteArray? = null
            override fun load() = if (broken) throw IllegalStateException("locked") else saved
            override fun save(session: ByteArray) { saved = session }
        }
        assertEquals(9, fails { SecoClient.connect(ClientConfig(cluster.deployment), store) }.code)
        store.broken = false
        SecoClient.connect(ClientConfig(cluster.deployment), store).use {
            assertEquals(Digits.label(6), it.infer(Digits.all[6]).label.toInt())
        }
    }

    @Test
    fun `a file may name several models`() = runBlocking {
        // The same model by two names, and with names of classes by the second.
        val one = cluster.deployment.substring(cluster.deployment.indexOf("[model]"), cluster.deployment.indexOf("[[servers]]"))
        val listed = one.replace("[model.", "[models.")
        val named = listOf("first", "second").map { listed.replace("[model]", "[[models]]\nname = \"$it\"") }
        val classes = (0..9).joinToString(prefix = "classes = [", postfix = "]") { "\"class $it\"" }
        val second = named[1].replace("[[models.outputs]]", "[[models.outputs]]\n$classes")
        val both = cluster.deployment.replace(one, named[0] + second).replace("version = 3", "version = 5")
        for ((name, expected) in listOf("first" to null, "second" to "class ${Digits.label(3)}")) {
            SecoClient.connect(ClientConfig(both, model = name)).use {
                assertEquals(expected, it.answers(it.infer(Digits.all[3])).single().className, name)
            }
        }
        for ((text, name) in listOf(both to null, both to "third", both to "", cluster.deployment to "first")) {
            assertEquals(1, fails { SecoClient.connect(ClientConfig(text, model = name)) }.code, name)
        }
    }

    @Test
    fun `servers that are gone are an error in time`() {
        Cluster("mlp", 2).use { short ->
            val config = ClientConfig(short.deployment, connectTimeoutMs = 1000u, requestTimeoutMs = 4000u)
            client(config) { client ->
                client.infer(Digits.small[0])
                short.close()
                val (start, seen) = System.nanoTime() to mutableListOf<RequestProgress>()
                assertTrue(fails { client.infer(Digits.small[0]) { seen += it } }.code in 3..4)
                assertTrue(TimeUnit.NANOSECONDS.toSeconds(System.nanoTime() - start) < 8)
                // The gateway is waited for.
                assertTrue(RequestProgress.Waiting(0u) in seen, "$seen")
            }
            assertTrue(fails { SecoClient.connect(config.copy(requestTimeoutMs = 1000u)) }.code in 3..4)
        }
    }

    @Test
    fun `many calls keep neither memory nor files`() = Cluster("mlp", 2).use { small ->
        val count = if (System.getenv("SECO_SLOW") == null) 240 else 1000
        client(ClientConfig(small.deployment)) { client ->
            suspend fun calls(count: Int) = repeat(count / 8) { client.inferMany(List(8) { Digits.small[it] }) }
            calls(80)
            val (memory, files) = resident() to openFiles()
            val start = System.nanoTime()
            calls(count)
            System.gc()
            println("$count calls in ${(System.nanoTime() - start) / 1_000_000} ms, memory $memory to ${resident()}")
            assertTrue(openFiles() <= files + 2)
            // The JVM's own heap moves by more than the library could lose in a few calls.
            assertTrue(resident() < memory + (32 shl 20))
        }
    }

    private fun resident(): Long = File("/proc/self/statm").readText().split(' ')[1].toLong() * 4096

    private fun openFiles(): Int = File("/proc/self/fd").list()!!.size
}
