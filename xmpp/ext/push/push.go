// Package push implements XEP-0357: Push Notifications 0.4.1, the user's server: it tells push services that there is something for a
// device that is not there.
package push
