plugins {
    id("com.android.application")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "io.github.seco.demo"
    compileSdk = 36
    defaultConfig {
        applicationId = "io.github.seco.demo"
        minSdk = 26
        targetSdk = 36
        versionCode = 1
        versionName = "0.1.0"
    }
    buildTypes {
        release { isMinifyEnabled = true }
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    // The view model, which the JVM tests without Android.
    sourceSets["main"].kotlin.srcDir("../logic/src/main/kotlin")
}

kotlin { jvmToolchain(17) }

dependencies {
    implementation(project(":seco-android"))
    implementation("org.jetbrains.kotlinx:kotlinx-coroutines-android:1.8.0")
}
