import DemoLogic
import SwiftUI

/// A square to draw in. What it shows is given to it, what the finger does is told.
struct DrawingArea: View {
    let drawing: Drawing
    let model: DigitViewModel
    @GestureState private var touching = false
    @State private var inStroke = false

    var body: some View {
        GeometryReader { place in
            Canvas { context, size in
                for stroke in drawing.strokes {
                    var path = Path()
                    path.addLines(stroke.map { CGPoint(x: CGFloat($0.x), y: CGFloat($0.y)) })
                    // A tap is a dot.
                    if let only = stroke.first, stroke.count == 1 {
                        path.addLine(to: CGPoint(x: CGFloat(only.x) + 0.1, y: CGFloat(only.y)))
                    }
                    let pen = StrokeStyle(lineWidth: size.width / 12, lineCap: .round, lineJoin: .round)
                    context.stroke(path, with: .color(.primary), style: pen)
                }
            }
            .contentShape(Rectangle())
            .gesture(
                DragGesture(minimumDistance: 0)
                    .updating($touching) { _, touching, _ in touching = true }
                    .onChanged { touch in
                        let point = Point(x: Float(touch.location.x), y: Float(touch.location.y))
                        if inStroke { model.strokeMoved(point) } else { model.strokeBegan(point) }
                        inStroke = true
                    }
            )
            // Also when the system takes the touch away, which `onEnded` is not told.
            .onChange(of: touching) { touching in
                guard !touching, inStroke else { return }
                inStroke = false
                model.strokeEnded()
            }
        }
        .aspectRatio(1, contentMode: .fit)
        .background(Color(.secondarySystemBackground))
        .clipShape(RoundedRectangle(cornerRadius: 16))
        .accessibilityElement()
        .accessibilityLabel("Drawing area. Draw one digit with your finger.")
        .accessibilityAddTraits(.allowsDirectInteraction)
    }
}

/// Bytes as a square of grey pixels, one per byte, row by row.
struct PixelPicture: View {
    let bytes: [UInt8]

    var body: some View {
        Canvas { context, size in
            let side = Drawing.side
            guard bytes.count == side * side else { return }
            let pixel = size.width / CGFloat(side)
            for (index, byte) in bytes.enumerated() {
                let corner = CGPoint(x: CGFloat(index % side) * pixel, y: CGFloat(index / side) * pixel)
                // Half a point larger, so that no background shines through.
                let square = CGRect(origin: corner, size: CGSize(width: pixel + 0.5, height: pixel + 0.5))
                context.fill(Path(square), with: .color(Color(white: Double(byte) / 255)))
            }
        }
        .accessibilityElement()
        .accessibilityLabel("The bytes that left the phone, as a picture: noise.")
    }
}
