package limiter

import "hash/maphash"

// Tenant is on whose behalf a request is: a hash of a name. 0 is nobody.
type Tenant uint64

var tenantSeed = maphash.MakeSeed()

// TenantNamed returns the tenant of a name. The same name gives the same tenant as long as the process lives, and
// nobody outside can foresee which names would be taken for each other. An empty name is nobody.
//
// Names should be such as a caller cannot make up, like those of an authenticated peer: who sends many names is many
// tenants.
func TenantNamed(name string) Tenant {
	if name == "" {
		return 0
	}
	return Tenant(max(1, maphash.String(tenantSeed, name)))
}
