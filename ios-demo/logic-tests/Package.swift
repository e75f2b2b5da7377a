// swift-tools-version:5.9
import PackageDescription

// Beside the package and not in it, so that Xcode does not resolve the servers' test helpers for the app.
let package = Package(
    name: "DemoLogicTests",
    dependencies: [
        .package(name: "DemoLogic", path: "../logic"),
        .package(name: "Seco", path: "../../bindings/swift"),
        .package(name: "SecoTests", path: "../../bindings/swift/tests"),
    ],
    targets: [
        .testTarget(
            name: "DemoLogicTests",
            dependencies: [
                .product(name: "DemoLogic", package: "DemoLogic"),
                .product(name: "Seco", package: "Seco"),
                .product(name: "SecoServers", package: "SecoTests"),
                .product(name: "SecoTesting", package: "Seco"),
            ]
        ),
    ]
)
