// Identifiers and times as Python writes them.
import Glibc

/// Random (version 4) UUIDs.
enum MessageID {
    /// 32 hexadecimal digits: `_msg_id`, `_unique_id`, queue names.
    static func hex() -> String {
        dashed().filter { $0 != "-" }
    }

    /// With dashes: message_id of a notification, the connection's name.
    static func dashed() -> String {
        var bytes = (0..<16).map { _ in UInt8.random(in: .min ... .max) }
        bytes[6] = bytes[6] & 0x0F | 0x40
        bytes[8] = bytes[8] & 0x3F | 0x80
        var text = ""
        for (index, byte) in bytes.enumerated() {
            if [4, 6, 8, 10].contains(index) { text += "-" }
            text += String(byte >> 4, radix: 16) + String(byte & 15, radix: 16)
        }
        return text
    }
}

/// A UTC time as `str(datetime)` writes it: "2026-11-22 21:49:56.405074".
enum NotificationTime {
    static func now() -> String {
        var time = timespec()
        // SAFETY: `time` outlives the call.
        _ = unsafe clock_gettime(CLOCK_REALTIME, &time)
        return text(secondsSince1970: time.tv_sec, microseconds: time.tv_nsec / 1000)
    }

    static func text(secondsSince1970 seconds: Int, microseconds: Int) -> String {
        // Civil date from days, with years that start in March so that the leap day comes last.
        let days = seconds / 86_400 + 719_468
        let era = days / 146_097
        let dayOfEra = days - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shiftedMonth = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
        let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
        let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        let clock = seconds % 86_400
        func padded(_ number: Int, _ width: Int = 2) -> String {
            let digits = String(number)
            return String(repeating: "0", count: max(0, width - digits.count)) + digits
        }
        return "\(padded(year, 4))-\(padded(month))-\(padded(day)) \(padded(clock / 3600)):\(padded(clock / 60 % 60)):"
            + "\(padded(clock % 60)).\(padded(microseconds, 6))"
    }
}
