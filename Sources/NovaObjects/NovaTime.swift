// Points in time as Nova writes them (contract §2.3): DateTime fields are "YYYY-MM-DDTHH:MM:SSZ"; contexts and entities outside
// of objects have microseconds and no zone; notifications have a blank for the T. Readers take fractions and offsets.
package import FoundationEssentials

/// A point in time, UTC, to the microsecond.
package struct NovaTime: Sendable, Hashable, Comparable {
    /// Microseconds since 1970.
    package let microseconds: Int64

    package init(microseconds: Int64) { self.microseconds = microseconds }

    /// Outside of the years this format can write, the nearest one it can.
    package init(_ date: Date) {
        microseconds = Int64(min(max(date.timeIntervalSince1970, -62_135_596_800), 253_402_300_799) * 1_000_000)
    }

    package static var now: NovaTime { NovaTime(Date()) }

    /// Reads "2026-01-02T03:04:05", with a blank for the T, a fraction, "Z" or an offset ("+02:00").
    package init?(_ text: String) {
        var reader = Reader(text)
        guard let year = reader.number(4), reader.take("-"), let month = reader.number(2), reader.take("-"),
            let day = reader.number(2), reader.take("T") || reader.take(" "), let hour = reader.number(2),
            reader.take(":"), let minute = reader.number(2), reader.take(":"), let second = reader.number(2),
            (1...12).contains(month), (1...31).contains(day), hour < 24, minute < 60, second < 61
        else { return nil }
        let fraction = reader.take(".") ? reader.fraction() : 0
        guard let fraction else { return nil }
        var offset = 0
        if !reader.isAtEnd, !reader.take("Z") {
            let sign = reader.take("+") ? 1 : reader.take("-") ? -1 : 0
            guard sign != 0, let hours = reader.number(2) else { return nil }
            _ = reader.take(":")
            guard let minutes = reader.number(2) else { return nil }
            offset = sign * (hours * 3600 + minutes * 60)
        }
        guard reader.isAtEnd else { return nil }
        let days = Self.days(year: year, month: month, day: day)
        let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset
        microseconds = Int64(seconds) * 1_000_000 + Int64(fraction)
    }

    /// "2026-01-02T03:04:05Z", for DateTime fields.
    package var fieldText: String { dateText("T") + "Z" }

    /// "2026-01-02T03:04:05.000006", for everything outside of objects.
    package var entityText: String { dateText("T") + "." + Self.padded(fractionPart, 6) }

    /// "2026-01-02 03:04:05.000006", for notifications.
    package var notificationText: String { dateText(" ") + "." + Self.padded(fractionPart, 6) }

    package static func < (left: NovaTime, right: NovaTime) -> Bool { left.microseconds < right.microseconds }

    /// Seconds from `other` to this.
    package func seconds(since other: NovaTime) -> Double {
        Double(microseconds - other.microseconds) / 1_000_000
    }

    private var fractionPart: Int { Int(microseconds - wholeSeconds * 1_000_000) }
    private var wholeSeconds: Int64 { (microseconds >= 0 ? microseconds : microseconds - 999_999) / 1_000_000 }

    private func dateText(_ separator: String) -> String {
        let seconds = Int(wholeSeconds)
        let days = (seconds >= 0 ? seconds : seconds - 86_399) / 86_400
        let ofDay = seconds - days * 86_400
        let (year, month, day) = Self.date(days: days)
        return Self.padded(year, 4) + "-" + Self.padded(month, 2) + "-" + Self.padded(day, 2) + separator
            + Self.padded(ofDay / 3600, 2) + ":" + Self.padded(ofDay / 60 % 60, 2) + ":" + Self.padded(ofDay % 60, 2)
    }

    private static func padded(_ value: Int, _ width: Int) -> String {
        let digits = String(value)
        return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }

    /// Days since 1970 of a date in the proleptic Gregorian calendar; years begin in March, so that the leap day is last.
    private static func days(year: Int, month: Int, day: Int) -> Int {
        let shifted = month <= 2 ? year - 1 : year
        let era = (shifted >= 0 ? shifted : shifted - 399) / 400
        let yearOfEra = shifted - era * 400
        let dayOfYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    }

    private static func date(days: Int) -> (year: Int, month: Int, day: Int) {
        let shifted = days + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shiftedMonth = (5 * dayOfYear + 2) / 153
        let month = shiftedMonth + (shiftedMonth < 10 ? 3 : -9)
        return (
            yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
        )
    }

    private struct Reader {
        private var rest: Substring.UTF8View

        init(_ text: String) { rest = Substring(text).utf8 }

        var isAtEnd: Bool { rest.isEmpty }

        mutating func take(_ character: Unicode.Scalar) -> Bool {
            guard let first = rest.first, UInt32(first) == character.value else { return false }
            rest = rest.dropFirst()
            return true
        }

        mutating func digit() -> Int? {
            guard let first = rest.first, (0x30...0x39).contains(first) else { return nil }
            rest = rest.dropFirst()
            return Int(first) - 0x30
        }

        mutating func number(_ count: Int) -> Int? {
            var value = 0
            for _ in 0..<count {
                guard let digit = digit() else { return nil }
                value = value * 10 + digit
            }
            return value
        }

        /// Microseconds from a decimal fraction of any length.
        mutating func fraction() -> Int? {
            guard let first = digit() else { return nil }
            var value = first * 100_000
            var weight = 10_000
            while let digit = digit() {
                value += digit * weight
                weight /= 10
            }
            return value
        }
    }
}
