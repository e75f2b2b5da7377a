#if canImport(Security)
import Foundation
import Security

/// Keeps a session in the keychain: on this device only, in no backup, readable after the first unlock.
public final class KeychainSessionStore: SessionStore {
    private let service: String

    /// - Parameter service: names the item; one for each deployment.
    public init(service: String) {
        self.service = service
    }

    private var item: [CFString: Any] {
        [kSecClass: kSecClassGenericPassword, kSecAttrService: service, kSecAttrAccount: "session"]
    }

    public func load() throws -> Data? {
        var query = item
        query[kSecReturnData] = true
        query[kSecMatchLimit] = kSecMatchLimitOne
        var found: CFTypeRef?
        switch SecItemCopyMatching(query as CFDictionary, &found) {
        case errSecSuccess: return found as? Data
        case errSecItemNotFound: return nil
        case let status: throw StoreError.Unavailable(reason: "keychain status \(status)")
        }
    }

    public func save(session: Data) throws {
        var status = SecItemUpdate(item as CFDictionary, [kSecValueData: session] as CFDictionary)
        if status == errSecItemNotFound {
            var new = item
            new[kSecValueData] = session
            new[kSecAttrAccessible] = kSecAttrAccessibleAfterFirstUnlockThisDeviceOnly
            status = SecItemAdd(new as CFDictionary, nil)
        }
        guard status == errSecSuccess else {
            throw StoreError.Unavailable(reason: "keychain status \(status)")
        }
    }
}
#endif
