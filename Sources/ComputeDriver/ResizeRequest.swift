// A server's new size. The machine is off from `beginResize` to `finishResize`; what it was before is kept until the user
// confirms the resize or takes it back:
//
//     checkResize ─ (power off) ─ beginResize ─ finishResize ─ (power on) ─┬─ confirmResize
//                                                                          └─ revertResize ─ (power on)
package import JSON
package import NovaObjects

/// Everything a driver needs to give a machine another size on the same host.
package struct ResizeRequest: Sendable {
    package var instance: Instance
    /// The new one; the instance may have it already.
    package var flavor: Flavor
    /// The image dict of the request, in Nova's form: its properties count as they did when the machine was made.
    package var image: JSONValue

    package init(instance: Instance, flavor: Flavor, image: JSONValue) {
        self.instance = instance
        self.flavor = flavor
        self.image = image
    }
}
