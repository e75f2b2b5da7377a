// A process of its own: connects with a stored session, asks once, prints bytes up of connecting and the label.
import Foundation
import Seco
import SecoServers

let deployment = try String(contentsOfFile: CommandLine.arguments[1], encoding: .utf8)
let config = ClientConfig(deployment: deployment)
let client = try await SecoClient.connect(config: config, store: FileSessionStore(path: CommandLine.arguments[2]))
let connecting = client.totalCost().bytesUp
let prediction = try await client.infer(Digits().all[5])
print(connecting, prediction.label)
