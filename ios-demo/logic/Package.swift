// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "DemoLogic",
    platforms: [.iOS(.v15), .macOS(.v12)],
    products: [.library(name: "DemoLogic", targets: ["DemoLogic"])],
    dependencies: [.package(name: "Seco", path: "../../bindings/swift")],
    targets: [.target(name: "DemoLogic", dependencies: [.product(name: "Seco", package: "Seco")])]
)
