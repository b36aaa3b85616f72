/// The version of both programs of the service.
enum ProgramVersion {
    static let text = "0.1.0"
}
