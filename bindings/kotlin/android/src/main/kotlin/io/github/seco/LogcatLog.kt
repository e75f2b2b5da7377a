package io.github.seco

import android.util.Log

/** Tells Logcat what a client does, under [tag]. */
class LogcatLog(private val tag: String = "seco") : ClientLog {
    override fun log(level: LogLevel, name: String, text: String) {
        val priority = when (level) {
            LogLevel.DEBUG -> Log.DEBUG
            LogLevel.INFO -> Log.INFO
            LogLevel.WARNING -> Log.WARN
        }
        Log.println(priority, tag, text)
    }
}
