package io.github.seco.demo

import android.app.Application
import io.github.seco.LogcatLog
import java.io.File
import java.io.IOException
import kotlinx.coroutines.MainScope

/** Holds the view model, which outlives the activity: turning the phone must not end the connection. */
class DemoApplication : Application() {
    val model: DigitViewModel by lazy {
        DigitViewModel(MainScope()) {
            SecoClassifier.connect(deployment(), File(noBackupFilesDir, "session"), LogcatLog())
        }.also { it.start() }
    }

    /** The deployment file that was pushed to this phone, or else the one in the package. */
    private fun deployment(): String = try {
        val pushed = File(getExternalFilesDir(null), NAME)
        if (pushed.exists()) pushed.readText() else assets.open(NAME).bufferedReader().use { it.readText() }
    } catch (missing: IOException) {
        throw ClassifierException(Problem.NO_DEPLOYMENT, missing)
    }

    private companion object {
        const val NAME = "deployment.toml"
    }
}
