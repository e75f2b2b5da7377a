#if canImport(Security)
import Foundation
import Security

/// Keeps a session in the keychain: on this device only, in no backup, readable after the first unlock.
public final class KeychainSessionStore: SessionStore {
    private let service: String
    private let accessGroup: String?

    /// - Parameters:
    ///   - service: names the item; one for each deployment.
    ///   - accessGroup: the keychain access group through which an app and its extensions share the item.
    public init(service: String, accessGroup: String? = nil) {
        self.service = service
        self.accessGroup = accessGroup
    }

    private var item: [CFString: Any] {
        var item: [CFString: Any] = [
            kSecClass: kSecClassGenericPassword, kSecAttrService: service, kSecAttrAccount: "session",
        ]
        if let accessGroup { item[kSecAttrAccessGroup] = accessGroup }
        return item
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
        let value = [kSecValueData: session] as CFDictionary
        var status = SecItemUpdate(item as CFDictionary, value)
        if status == errSecItemNotFound {
            var new = item
            new[kSecValueData] = session
            new[kSecAttrAccessible] = kSecAttrAccessibleAfterFirstUnlockThisDeviceOnly
            status = SecItemAdd(new as CFDictionary, nil)
            // Another process was faster.
            if status == errSecDuplicateItem { status = SecItemUpdate(item as CFDictionary, value) }
        }
        guard status == errSecSuccess else {
            throw StoreError.Unavailable(reason: "keychain status \(status)")
        }
    }
}
#endif
