import DemoLogic
import Network
import Seco
import SwiftUI

@main
struct DemoApp: App {
    @StateObject private var screen = ScreenModel()
    @Environment(\.scenePhase) private var phase

    var body: some Scene {
        WindowGroup {
            Page(screen: screen.shown, model: screen.model)
        }
        .onChange(of: phase) { phase in
            // Sockets may have died while the app was not in front.
            if phase == .active { screen.model.networkChanged() }
        }
    }
}

/// Shows the view model to SwiftUI, and tells it of the network; decides nothing.
@MainActor
final class ScreenModel: ObservableObject {
    @Published private(set) var shown = DigitScreen()
    let model: DigitViewModel
    private let network = NWPathMonitor()

    init() {
        model = DigitViewModel {
            try await SecoClassifier(
                deployment: ScreenModel.deployment(), session: KeychainSessionStore(service: "io.github.seco.demo"),
                log: UnifiedLog()
            )
        }
        model.changed = { [weak self] in self?.shown = $0 }
        model.start()
        network.pathUpdateHandler = { [weak self] path in
            guard path.status == .satisfied else { return }
            Task { @MainActor in self?.model.networkChanged() }
        }
        network.start(queue: .main)
    }

    /// The deployment file that was copied to this phone, or else the one in the app.
    private nonisolated static func deployment() throws -> String {
        let folder = FileManager.default.urls(for: .documentDirectory, in: .userDomainMask).first
        let places = [
            folder?.appendingPathComponent("deployment.toml"),
            Bundle.main.url(forResource: "deployment", withExtension: "toml"),
        ]
        for case let place? in places {
            if let text = try? String(contentsOf: place, encoding: .utf8) { return text }
        }
        throw ClassifierError(.noDeployment)
    }
}
