// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "SecoTests",
    products: [.library(name: "SecoTesting", targets: ["SecoTesting"])],
    dependencies: [.package(name: "Seco", path: "..")],
    targets: [
        // A real cluster, and digits to ask it about.
        .target(name: "SecoTesting"),
        .executableTarget(name: "OneRequest", dependencies: ["SecoTesting", .product(name: "Seco", package: "Seco")]),
        .testTarget(
            name: "SecoTests",
            dependencies: ["SecoTesting", "OneRequest", .product(name: "Seco", package: "Seco")]
        ),
    ]
)
