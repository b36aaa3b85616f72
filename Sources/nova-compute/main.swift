// The program's place in the package. The service is not written yet: README.md says what works.
import Foundation

FileHandle.standardError.write(Data("nova-compute: not implemented yet; see \"What works\" in README.md\n".utf8))
exit(1)
