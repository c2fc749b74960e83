package limiter

import (
	"fmt"
	"testing"
)

func TestTenantNamed(t *testing.T) {
	if got := TenantNamed(""); got != 0 {
		t.Errorf("an empty name is tenant %x, want nobody", got)
	}
	named := map[Tenant]string{}
	for i := range 100_000 {
		name := fmt.Sprintf("tenant %d", i)
		tenant := TenantNamed(name)
		if tenant == 0 || tenant != TenantNamed(name) {
			t.Fatalf("%q is tenant %x, and then %x; want the same, and somebody", name, tenant, TenantNamed(name))
		}
		if other, taken := named[tenant]; taken {
			t.Fatalf("%q and %q are both tenant %x", name, other, tenant)
		}
		named[tenant] = name
	}
}
