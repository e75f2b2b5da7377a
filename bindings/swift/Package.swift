// swift-tools-version:5.9
import PackageDescription

// On Apple's systems the library comes as an XCFramework (build-xcframework.sh), elsewhere from the linker's path.
#if os(Linux)
let library = Target.systemLibrary(name: "SecoFFI")
let settings: [LinkerSetting] = [.linkedLibrary("seco")]
#else
let library = Target.binaryTarget(name: "SecoFFI", path: "Seco.xcframework")
let settings: [LinkerSetting] = []
#endif

let package = Package(
    name: "Seco",
    platforms: [.iOS(.v15), .macOS(.v12)],
    products: [
        .library(name: "Seco", targets: ["Seco"]),
        // For an app's tests alone.
        .library(name: "SecoTesting", targets: ["SecoTesting"]),
    ],
    targets: [
        library,
        .target(
            name: "Seco",
            dependencies: ["SecoFFI"],
            resources: [.copy("PrivacyInfo.xcprivacy")],
            linkerSettings: settings
        ),
        .target(name: "SecoTesting", dependencies: ["Seco"]),
    ]
)
