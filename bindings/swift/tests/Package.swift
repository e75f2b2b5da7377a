// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "SecoTests",
    products: [.library(name: "SecoServers", targets: ["SecoServers"])],
    dependencies: [.package(name: "Seco", path: "..")],
    targets: [
        // A real cluster, and digits to ask it about.
        .target(name: "SecoServers"),
        .executableTarget(name: "OneRequest", dependencies: ["SecoServers", .product(name: "Seco", package: "Seco")]),
        .testTarget(
            name: "SecoTests",
            dependencies: [
                "SecoServers", "OneRequest", .product(name: "Seco", package: "Seco"),
                .product(name: "SecoTesting", package: "Seco"),
            ]
        ),
    ]
)
