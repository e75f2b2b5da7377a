package io.github.seco.demo

import android.app.Activity
import android.net.ConnectivityManager
import android.net.Network
import android.os.Bundle
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.MainScope
import kotlinx.coroutines.cancel
import kotlinx.coroutines.launch

/** Shows the view model's state and tells it what the user does; decides nothing. */
class MainActivity : Activity() {
    private val scope: CoroutineScope = MainScope()
    private val model get() = (application as DemoApplication).model

    private val network = object : ConnectivityManager.NetworkCallback() {
        // It comes on a thread of the system's.
        override fun onAvailable(network: Network) {
            scope.launch(Dispatchers.Main) { model.networkChanged() }
        }
    }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        val page = Page(this)
        page.drawing.onBegin = model::strokeBegan
        page.drawing.onMove = model::strokeMoved
        page.drawing.onEnd = model::strokeEnded
        page.clear.setOnClickListener { model.clear() }
        page.retry.setOnClickListener { model.retry() }
        setContentView(page)
        scope.launch { model.screen.collect(page::show) }
    }

    override fun onStart() {
        super.onStart()
        // Sockets may have died while the app was not in front.
        model.networkChanged()
        getSystemService(ConnectivityManager::class.java).registerDefaultNetworkCallback(network)
    }

    override fun onStop() {
        getSystemService(ConnectivityManager::class.java).unregisterNetworkCallback(network)
        super.onStop()
    }

    override fun onDestroy() {
        scope.cancel()
        super.onDestroy()
    }
}
