pluginManagement {
    repositories {
        google()
        mavenCentral()
        gradlePluginPortal()
    }
}
dependencyResolutionManagement {
    repositories {
        google()
        mavenCentral()
    }
}
rootProject.name = "seco-android-demo"
include(":app", ":seco-android")
project(":seco-android").projectDir = file("../bindings/kotlin/android")
