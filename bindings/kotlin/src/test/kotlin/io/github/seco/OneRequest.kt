package io.github.seco

import java.io.File
import kotlinx.coroutines.runBlocking

/** A process of its own: connects with a stored session, asks once, prints bytes up of connecting and the label. */
fun main(arguments: Array<String>) = runBlocking {
    val (deployment, session) = arguments.map(::File)
    SecoClient.connect(ClientConfig(deployment.readText()), FileSessionStore(session)).use {
        val connecting = it.totalCost().bytesUp
        println("$connecting ${it.infer(Digits.all[5]).label}")
    }
}
