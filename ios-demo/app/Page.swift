import DemoLogic
import SwiftUI
import UIKit

/// The one page: drawing area, answer, what left the phone, what it cost.
struct Page: View {
    let screen: DigitScreen
    let model: DigitViewModel

    var body: some View {
        ScrollView {
            VStack(alignment: .leading, spacing: 16) {
                Text("Draw a digit").font(.title).accessibilityAddTraits(.isHeader)
                DrawingArea(drawing: screen.drawing, model: model)
                Text(screen.status.words).font(.largeTitle).frame(minHeight: 80, alignment: .topLeading)
                HStack(spacing: 16) {
                    Button("Clear") { model.clear() }
                    if screen.status.isFailure { Button("Try again") { model.retry() } }
                }
                .buttonStyle(.bordered)
                .controlSize(.large)
                if let sent = screen.sent {
                    Text("What left the phone").font(.title3).accessibilityAddTraits(.isHeader)
                    PixelPicture(bytes: sent).frame(width: 168, height: 168)
                }
                if let costs = screen.costs {
                    Text("What it cost the phone").font(.title3).accessibilityAddTraits(.isHeader)
                    CostTable(costs: costs)
                }
            }
            .padding(24)
            .frame(maxWidth: 560)
            .frame(maxWidth: .infinity)
        }
        .onChange(of: screen.status) { status in
            // Read aloud when it changes.
            UIAccessibility.post(notification: .announcement, argument: status.words)
        }
    }
}

/// The last private request beside a plain one.
private struct CostTable: View {
    let costs: Costs

    var body: some View {
        VStack(spacing: 8) {
            line("", "private", "plain")
            row("bytes up") { $0.bytesUp.formatted() }
            row("bytes down") { $0.bytesDown.formatted() }
            row("packets") { $0.packets.formatted() }
            row("CPU, ms") { $0.cpuMicros.map { String(format: "%.1f", Double($0) / 1000) } ?? "–" }
            row("waiting, ms") { String(format: "%.0f", Double($0.wallMicros) / 1000) }
        }
        .font(.body.monospacedDigit())
    }

    private func row(_ name: String, _ value: (RequestCost) -> String) -> some View {
        line(name, value(costs.private), value(costs.plain))
            .accessibilityElement(children: .ignore)
            .accessibilityLabel("\(name): private \(value(costs.private)), plain \(value(costs.plain))")
    }

    private func line(_ name: String, _ first: String, _ second: String) -> some View {
        HStack {
            Text(name).frame(maxWidth: .infinity, alignment: .leading)
            Text(first).frame(maxWidth: .infinity, alignment: .trailing)
            Text(second).frame(maxWidth: .infinity, alignment: .trailing)
        }
    }
}
