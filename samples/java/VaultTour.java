import com.azure.core.exception.HttpResponseException;
import com.azure.core.http.rest.PagedResponse;
import com.azure.identity.DefaultAzureCredentialBuilder;
import com.azure.security.keyvault.secrets.SecretClient;
import com.azure.security.keyvault.secrets.SecretClientBuilder;
import com.azure.security.keyvault.secrets.models.KeyVaultSecret;
import com.azure.security.keyvault.secrets.models.SecretProperties;
import java.util.HashSet;
import java.util.Set;

/**
 * Sets, reads, lists and deletes secrets of a key vault.
 *
 * <p>An ordinary program for a pod with a workload identity: it knows the vault's URL from its environment, and nothing
 * else.
 *
 * <pre>KEYVAULT_URL=https://NAME.vault.azure.net java -cp 'lib/*' VaultTour.java</pre>
 */
public class VaultTour {
    private static final int SECRETS = 30;

    public static void main(String[] args) {
        SecretClient client = client(System.getenv("KEYVAULT_URL"));

        KeyVaultSecret first = client.setSecret("tour", "one");
        KeyVaultSecret second = client.setSecret("tour", "two");
        System.out.println("current: " + client.getSecret("tour").getValue());
        System.out.println("first version: " + client.getSecret("tour", first.getProperties().getVersion()).getValue());
        Set<String> versions = new HashSet<>();
        client.listPropertiesOfSecretVersions("tour").forEach(v -> versions.add(v.getVersion()));
        System.out.println("both versions are listed: "
            + versions.equals(Set.of(first.getProperties().getVersion(), second.getProperties().getVersion())));

        SecretProperties properties = second.getProperties().setEnabled(false);
        System.out.println("enabled: " + client.updateSecretProperties(properties).isEnabled());
        refused("a disabled secret", () -> client.getSecret("tour"));
        client.updateSecretProperties(properties.setEnabled(true));

        for (int i = 0; i < SECRETS; i++) {
            client.setSecret(String.format("page-%02d", i), Integer.toString(i));
        }
        Set<String> names = new HashSet<>();
        int listed = 0;
        int pages = 0;
        for (PagedResponse<SecretProperties> page : client.listPropertiesOfSecrets().iterableByPage(7)) {
            pages++;
            for (SecretProperties p : page.getValue()) {
                if (p.getName().startsWith("page-")) {
                    listed++;
                    names.add(p.getName());
                }
            }
        }
        System.out.println("listed: " + names.size() + " of " + listed + " in several pages: " + (pages > 1));

        refused("a secret that is not there", () -> client.getSecret("absent"));
        refused("a name that is none", () -> client.setSecret("not_a_name", "x"));

        byte[] backup = client.backupSecret("tour");
        client.beginDeleteSecret("tour").waitForCompletion();
        System.out.println("deleted: " + client.getDeletedSecret("tour").getName());
        client.purgeDeletedSecret("tour");
        System.out.println("restored: " + client.restoreSecretBackup(backup).getName() + " "
            + client.getSecret("tour").getValue());

        String other = System.getenv("OTHER_VAULT_URL");
        refused("another vault", () -> client(other).getSecret("tour"));
    }

    private static SecretClient client(String url) {
        return new SecretClientBuilder().vaultUrl(url).credential(new DefaultAzureCredentialBuilder().build()).buildClient();
    }

    private static void refused(String what, Runnable call) {
        try {
            call.run();
            System.out.println(what + ": allowed");
        } catch (HttpResponseException e) {
            System.out.println(what + ": " + e.getResponse().getStatusCode());
        }
    }
}
