// Seconds since 1970 as date and time of the proleptic Gregorian calendar, and back.

package struct CivilDate: Sendable, Equatable {
    package var year: Int64, month: Int64, day: Int64
    package var hour: Int64, minute: Int64, second: Int64
    /// 1 is Sunday, as the MC146818 counts.
    package var weekday: Int64

    package init(secondsSince1970 seconds: Int64) {
        let (quotient, remainder) = seconds.quotientAndRemainder(dividingBy: 86400)
        let days = remainder < 0 ? quotient - 1 : quotient
        let ofDay = remainder < 0 ? remainder + 86400 : remainder
        hour = ofDay / 3600
        minute = ofDay / 60 % 60
        second = ofDay % 60
        weekday = ((days + 4) % 7 + 7) % 7 + 1
        // Years begin in March here, so that the leap day is the last of its year; an era is 400 years.
        let shifted = days + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shiftedMonth = (5 * dayOfYear + 2) / 153
        month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
        year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        day = dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
    }

    /// Nil where the fields are no date between the years 0 and 9999; the weekday is not looked at.
    package static func secondsSince1970(
        year: Int64, month: Int64, day: Int64, hour: Int64, minute: Int64, second: Int64
    ) -> Int64? {
        guard (0...9999).contains(year), (1...12).contains(month), (1...31).contains(day), (0...23).contains(hour),
            (0...59).contains(minute), (0...59).contains(second)
        else { return nil }
        let shiftedYear = month <= 2 ? year - 1 : year
        let era = (shiftedYear >= 0 ? shiftedYear : shiftedYear - 399) / 400
        let yearOfEra = shiftedYear - era * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
        let seconds = (era * 146_097 + dayOfEra - 719_468) * 86400 + hour * 3600 + minute * 60 + second
        // 30 February would come back as a day of March.
        return CivilDate(secondsSince1970: seconds).day == day ? seconds : nil
    }
}
